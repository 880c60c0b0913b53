// Reads examples/data: queries, keys and values of one attention layer, as raw bfloat16 files that recording.txt lists.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include <winnow/winnow.hpp>

namespace quickstart {

/// One tensor, packed [token, head, channel].
struct tensor {
    std::int64_t tokens = 0, heads = 0, head_dim = 0;
    std::vector<winnow::bf16> data;

    /// As a batch of one request.
    winnow::tensor_view<winnow::bf16 const, 4> view() const {
        return winnow::packed_view(data.data(), {1, tokens, heads, head_dim});
    }
};

struct recording {
    tensor queries, keys, values;
    std::map<std::string, std::string> notes;  ///< "# name: text" lines of recording.txt

    /// Text of a note up to `stop`, for titles.
    std::string note(std::string const& name, std::string const& stop) const {
        auto const found = notes.find(name);
        return found == notes.end() ? "unknown" : found->second.substr(0, found->second.find(stop));
    }
};

/// Reads one raw file of the size that its extents promise. False: `problem` says what is wrong.
inline bool read_tensor(std::filesystem::path const& path, tensor& t, std::string& problem) {
    static_assert(sizeof(winnow::bf16) == 2, "files hold 16-bit words");
    std::error_code error;
    auto const found = std::filesystem::file_size(path, error);
    if (error) return problem = path.string() + ": " + error.message(), false;
    auto const count = static_cast<std::size_t>(t.tokens * t.heads * t.head_dim);
    if (found != count * 2) {
        problem = path.string() + ": holds " + std::to_string(found) + " bytes, and recording.txt promises " +
                  std::to_string(count * 2) + " (a file of some hundred bytes is a pointer: run 'git lfs pull')";
        return false;
    }
    t.data.resize(count);
    std::ifstream file(path, std::ios::binary);
    // Little-endian files on little-endian machines: everything that CUDA runs on.
    if (!file.read(reinterpret_cast<char*>(t.data.data()), static_cast<std::streamsize>(found)))
        return problem = path.string() + ": cannot be read", false;
    return true;
}

/// Reads the whole directory. False: `problem` says what is wrong.
inline bool read_recording(std::filesystem::path const& directory, recording& r, std::string& problem) {
    auto const list = directory / "recording.txt";
    std::ifstream file(list);
    if (!file) {
        problem = list.string() + ": cannot be opened. Give the directory of the recording: --data DIR";
        return false;
    }
    std::map<std::string, tensor*> const wanted{{"queries", &r.queries}, {"keys", &r.keys}, {"values", &r.values}};
    for (std::string line; std::getline(file, line);) {
        if (line.rfind("# ", 0) == 0) {
            auto const colon = line.find(": ");
            if (colon != std::string::npos) r.notes[line.substr(2, colon - 2)] = line.substr(colon + 2);
            continue;
        }
        std::istringstream words(line);
        std::string name, type;
        tensor t;
        if (!(words >> name >> type >> t.tokens >> t.heads >> t.head_dim) || !wanted.count(name)) continue;
        if (type != "bf16" || t.tokens < 1 || t.heads < 1 || t.head_dim < 1)
            return problem = list.string() + ": not a line this program understands: " + line, false;
        if (!read_tensor(directory / (name + ".bf16"), t, problem)) return false;
        *wanted.at(name) = std::move(t);
    }
    for (auto const& [name, t] : wanted)
        if (t->data.empty()) return problem = list.string() + ": has no line for " + name, false;
    if (r.keys.tokens != r.queries.tokens || r.values.tokens != r.keys.tokens || r.values.heads != r.keys.heads)
        return problem = list.string() + ": queries, keys and values do not fit each other", false;
    return true;
}

}  // namespace quickstart
