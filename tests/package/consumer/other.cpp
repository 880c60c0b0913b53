// The second translation unit: a function or variable in the headers that is not inline is defined twice here.
#include <winnow/winnow.hpp>

#include <winnow/version.hpp>

int version_in_other_file() {
    return winnow::version_major * 10000 + winnow::version_minor * 100 + winnow::version_patch;
}
