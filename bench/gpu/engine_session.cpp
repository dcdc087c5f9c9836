// What a user's session gains from the GPU: reading a text and writing from it through the same Session that the engine has,
// with the products on the GPU and with the cores alone.
#include <chrono>
#include <fstream>
#include <thread>

#include "bench.h"
#include "session/session.h"

namespace nosa::bench {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

}  // namespace

void engine_session(Figures& figures, const Settings& settings) {
  if (settings.model.empty() || settings.tokens.empty() || settings.library.empty()) fail("session needs --model, --tokens and --library");
  std::ifstream file(settings.tokens, std::ios::binary);
  std::vector<uint32_t> text;
  for (uint32_t id = 0; int(text.size()) < settings.prompt && file.read(reinterpret_cast<char*>(&id), sizeof(id));) text.push_back(id);
  for (const std::string& library : {settings.library, std::string()}) {
    ModelOptions options;
    options.path = settings.model;
    options.n_threads = int(std::max(1u, std::thread::hardware_concurrency()));
    options.cuda_library = library;
    const Clock::time_point opening = Clock::now();
    const auto session = must(Session::open(options), "opening the model");
    const double open_seconds = seconds_since(opening);
    if (!session->model().gpu_problem().empty()) fail("The GPU is not used: " + session->model().gpu_problem());
    for (uint32_t& id : text) id %= uint32_t(session->model().config().n_vocab);
    Sequence& sequence = *must(session->sequence(must(session->create_sequence(0, {}), "creating")), "creating");
    must(sequence.set_tokens(text).status(), "setting tokens");
    const Clock::time_point reading = Clock::now();
    must(sequence.prefill(int(text.size()), {}).status(), "reading");
    const double read_seconds = seconds_since(reading);
    DecodeRequest request;
    request.n_steps = 8;
    must(sequence.decode(request, {}).status(), "writing");
    request.n_steps = 64;
    const Clock::time_point writing = Clock::now();
    must(sequence.decode(request, {}).status(), "writing");
    const double write_seconds = seconds_since(writing);
    figures.begin("a session of the engine").add("model", session->model().config().name).add("device", session->model().device())
        .add("threads", options.n_threads).add("tokens read", double(text.size())).add("open s", open_seconds)
        .add("read tokens/s", double(text.size()) / read_seconds).add("write tokens/s", request.n_steps / write_seconds).end();
  }
}

}  // namespace nosa::bench
