// The benchmark of the CUDA part: gpu_bench WHAT... [--option value]...
//   WHAT       gather, decode-8b, decode-model, many, session, beside-llama
//   --json     where the figures go; they are printed too, a line each
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>

#include "bench.h"

namespace nosa::bench {

void fail(const std::string& what) {
  std::fprintf(stderr, "%s\n", what.c_str());
  std::exit(1);
}

void must(cudaError_t error, const char* what) {
  if (error != cudaSuccess) fail(std::string(what) + ": " + cudaGetErrorString(error));
}

void must(const Status& status, const char* what) {
  if (!status.ok()) fail(std::string(what) + ": " + status.message());
}

Figures& Figures::begin(const std::string& name) {
  line_ = "{\"figure\": \"" + name + "\"";
  return *this;
}

Figures& Figures::add(const std::string& key, double value) {
  char text[64];
  std::snprintf(text, sizeof(text), "%.6g", value);
  line_ += ", \"" + key + "\": " + text;
  return *this;
}

Figures& Figures::add(const std::string& key, const std::string& value) {
  line_ += ", \"" + key + "\": \"" + value + "\"";
  return *this;
}

void Figures::end() {
  line_ += "}";
  std::printf("%s\n", line_.c_str());
  std::fflush(stdout);
  lines_.push_back(line_);
}

void Figures::write(const std::string& path) const {
  std::ofstream file(path);
  file << "[\n";
  for (size_t i = 0; i < lines_.size(); ++i) file << "  " << lines_[i] << (i + 1 < lines_.size() ? ",\n" : "\n");
  file << "]\n";
}

namespace {

void describe_machine(Figures& figures) {
  cudaDeviceProp properties = {};
  int driver = 0;
  must(cudaGetDeviceProperties(&properties, 0), "asking for the GPU");
  must(cudaDriverGetVersion(&driver), "asking for the driver");
  char date[32];
  const std::time_t now = std::time(nullptr);
  std::strftime(date, sizeof(date), "%Y-%m-%d", std::gmtime(&now));
  figures.begin("machine").add("gpu", properties.name).add("driver supports CUDA", driver / 1000 + driver % 1000 / 10 / 10.0)
      .add("multiprocessors", properties.multiProcessorCount).add("device GiB", double(properties.totalGlobalMem) / (1 << 30)).add("date", date).end();
}

int run(int argc, char** argv) {
  Settings settings;
  std::string json;
  std::vector<std::string> what;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word.rfind("--", 0) != 0) {
      what.push_back(word);
      continue;
    }
    if (i + 1 == argc) fail(word + " needs a value");
    const char* value = argv[++i];
    const std::map<std::string, double*> numbers = {{"--nosa-misses", &settings.nosa_misses},
                                                    {"--exact-misses", &settings.exact_misses},
                                                    {"--infllm-misses", &settings.infllm_misses},
                                                    {"--infllm-exact-misses", &settings.infllm_exact_misses},
                                                    {"--host-gib", &settings.host_gib}};
    const std::map<std::string, int*> counts = {{"--context", &settings.context}, {"--steps", &settings.steps}, {"--layers", &settings.layers}, {"--prompt", &settings.prompt}};
    const std::map<std::string, std::string*> texts = {{"--model", &settings.model}, {"--tokens", &settings.tokens}, {"--json", &json}, {"--library", &settings.library}, {"--llama-bench", &settings.llama_bench}};
    if (const auto number = numbers.find(word); number != numbers.end()) {
      *number->second = std::atof(value);
    } else if (const auto count = counts.find(word); count != counts.end()) {
      *count->second = std::atoi(value);
    } else if (const auto text = texts.find(word); text != texts.end()) {
      *text->second = value;
    } else {
      fail("There is no option " + word + ".");
    }
  }
  Figures figures;
  describe_machine(figures);
  const Ceilings ceilings = measure_ceilings(figures);
  for (const std::string& name : what) {
    if (name == "gather") {
      gather(figures, ceilings);
    } else if (name == "decode-8b") {
      decode_8b(figures, settings, ceilings);
    } else if (name == "decode-model") {
      decode_model(figures, settings, ceilings);
    } else if (name == "many") {
      many(figures, settings, ceilings);
    } else if (name == "beside-llama") {
      beside_llama(figures, settings);
    } else if (name == "session") {
      engine_session(figures, settings);
    } else {
      fail("There is no benchmark " + name + ": gather, decode-8b, decode-model, many, session, beside-llama.");
    }
  }
  if (!json.empty()) figures.write(json);
  return 0;
}

}  // namespace
}  // namespace nosa::bench

int main(int argc, char** argv) { return nosa::bench::run(argc, argv); }
