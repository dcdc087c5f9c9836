// Writes a small seed corpus: fuzz_seeds FOLDER makes FOLDER/gguf, FOLDER/safetensors, FOLDER/json.

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "support/gguf_writer.h"
#include "support/quantised_rows.h"
#include "support/safetensors_writer.h"

namespace {

namespace fs = std::filesystem;
using nosa::test::Bytes;

void write(const fs::path& folder, const std::string& name, const Bytes& bytes) {
  fs::create_directories(folder);
  std::ofstream file(folder / name, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
}

void write_gguf(const fs::path& folder) {
  nosa::test::Random random(1);
  for (const uint32_t version : {2u, 3u}) {
    nosa::test::GgufWriter writer(version);
    writer.add_string("general.architecture", "llama")
        .add_u32("general.alignment", 32)
        .add_f32("llama.rope.freq_base", 1e4f)
        .add_bool("tokenizer.ggml.add_bos_token", true)
        .add_strings("tokenizer.ggml.tokens", {"<s>", "a", "bc"})
        .add_f32s("tokenizer.ggml.scores", {0.0f, 1.0f})
        .add_i32s("tokenizer.ggml.token_type", {1, 2, 3})
        .add_u64("n", 7);
    for (const nosa::DType dtype : nosa::test::all_dtypes) {
      const int64_t cols = nosa::block_values(dtype);
      writer.add_tensor(nosa::dtype_name(dtype), {cols, 2}, dtype,
                        nosa::test::random_rows(dtype, 2, cols, random));
    }
    write(folder, "v" + std::to_string(version), writer.finish());
  }
  write(folder, "empty", nosa::test::GgufWriter().finish());
}

void write_safetensors(const fs::path& folder) {
  write(folder, "two",
        nosa::test::SafetensorsWriter()
            .add("model.norm.weight", "F32", {2}, Bytes(8))
            .add("lm_head.weight", "BF16", {2, 3}, Bytes(12))
            .finish());
  write(folder, "empty", nosa::test::safetensors_file("{}", {}));
  write(folder, "index",
        nosa::test::bytes_of(R"({"metadata":{},"weight_map":{"a":"b.safetensors"}})"));
}

void write_json(const fs::path& folder) {
  write(
      folder, "all",
      nosa::test::bytes_of(R"({"a":[1,-2.5e+3,true,false,null],"\u00e9\ud83d\ude00":{"b":"\n"}})"));
  write(folder, "number", nosa::test::bytes_of("-0.5E-10"));
  write(folder, "nested", nosa::test::bytes_of("[[[[[[{\"a\":[]}]]]]]]"));
}

}  // namespace

int main(int n_arguments, char** arguments) {
  if (n_arguments != 2) {
    std::fprintf(stderr, "usage: fuzz_seeds FOLDER\n");
    return 2;
  }
  const fs::path folder = arguments[1];
  write_gguf(folder / "gguf");
  write_safetensors(folder / "safetensors");
  write_json(folder / "json");
  return 0;
}
