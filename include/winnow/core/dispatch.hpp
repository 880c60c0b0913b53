// From a run-time value to a compile-time one, over the list the caller wants: the only dispatch in the library.
#pragma once

#include <type_traits>

#include "winnow/core/status.hpp"

namespace winnow {

/// Compile-time list of values.
template <auto... Values>
struct value_list {
    static constexpr int size = sizeof...(Values);  ///< values in the list
    /// True if `value` is in the list.
    static constexpr bool contains([[maybe_unused]] auto value) { return ((value == Values) || ...); }
};

/// Calls `f(std::integral_constant<..., v>)` for the `v` in the list that equals `value` and returns its status;
/// otherwise a status that says which field had no instance.
template <auto... Values, class V, class F>
status dispatch(value_list<Values...>, V value, char const* field, F&& f) {
    status result =
        fail(errc::unsupported, field, "no kernel was instantiated for this value", static_cast<long long>(value));
    (void)((value == Values && (result = f(std::integral_constant<decltype(Values), Values>{}), true)) || ...);
    return result;
}

}  // namespace winnow
