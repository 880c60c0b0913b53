// Loads libraries into one process and calls functions of theirs: all answers must be equal.
//   main local|global LIBRARY:FUNCTION...
// global: the libraries see each other's symbols, so that a function which both hold is taken from the first.
#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <string>

int main(int count, char** words) {
    int const mode = RTLD_NOW | (std::strcmp(words[1], "global") == 0 ? RTLD_GLOBAL : RTLD_LOCAL);
    std::string first;
    for (int i = 2; i < count; ++i) {
        std::string const word = words[i];
        auto const colon = word.rfind(':');
        void* const library = dlopen(word.substr(0, colon).c_str(), mode);
        void* const symbol = library ? dlsym(library, word.substr(colon + 1).c_str()) : nullptr;
        if (!symbol) {
            std::printf("%s\n", dlerror());
            return 1;
        }
        std::string const said = reinterpret_cast<char const* (*)()>(symbol)();
        if (i == 2) first = said;
        if (said != first) {
            std::printf("%s says '%s'\nand the first '%s'\n", words[i], said.c_str(), first.c_str());
            return 1;
        }
    }
    std::printf("%d agree: %s\n", count - 2, first.c_str());
    return 0;
}
