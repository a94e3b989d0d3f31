// What XLA calls: the handlers, the tasks of a call on XLA's threads, and the choice of kernels.
//
// A computation may still run while the process exits and static objects are destroyed: those here
// have no destructor.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "contraction.h"
#include "xla/ffi/api/ffi.h"

namespace semijax {
namespace {

namespace ffi = xla::ffi;

struct Target {
  const char* name;
  Kernels run;
};

// What this processor can run, the best first.
struct Targets {
  Target all[3];
  int count;

  void add(Target target) { all[count++] = target; }
  const Target* begin() const { return all; }
  const Target* end() const { return all + count; }
};
static_assert(std::is_trivially_destructible_v<Targets>);

const Targets& targets() {
  static const Targets found = [] {
    Targets found{};
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool fma = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    if (fma && wide) found.add({"avx512", avx512::run});
    if (fma) found.add({"avx2", avx2::run});
#endif
    found.add({"baseline", baseline::run});
    return found;
  }();
  return found;
}

std::atomic<const Target*> chosen = nullptr;

const Target& target() {
  const Target* forced = chosen.load();
  return forced ? *forced : *targets().begin();
}

// The tasks of a call, taken in turn by the thread that XLA called and by helpers from its pool.
class Job {
 public:
  Job(const Contraction& call, Index threads) : call_(call), run_(target().run) {
    strips_ = (call.columns + kStrip - 1) / kStrip;
    // Four tasks a thread, so that a slow one does not keep the others waiting for long.
    const Index wanted = 4 * threads, others = std::max<Index>(1, call.batch * strips_);
    const Index chunks = std::max<Index>(1, wanted / others);
    rows_ = std::clamp<Index>((call.rows + chunks - 1) / chunks, kFewestRows, kMostRows);
    rows_ = (rows_ + kWeightRows - 1) / kWeightRows * kWeightRows;
    chunks_ = (call.rows + rows_ - 1) / rows_;
    tasks_ = call.batch * strips_ * chunks_;
  }

  // Out of memory, the process ends: helpers may still be writing the result.
  static void run(const Contraction& call, ffi::ThreadPool& pool) noexcept {
    const double products = double(call.batch) * call.rows * call.depth * call.columns;
    const Index threads = std::clamp<Index>(products / kProductsPerThread, 1, 1 + pool.num_threads());
    auto job = std::make_shared<Job>(call, threads);
    for (Index i = 1; i < std::min(threads, job->tasks_); ++i) pool.Schedule([job] { job->help(); });
    job->help();
    job->wait();
  }

 private:
  static constexpr Index kFewestRows = 16;
  static constexpr double kProductsPerThread = 1 << 17;

  // Tasks until there are none. A helper that starts late finds none and touches nothing else.
  void help() noexcept {
    struct alignas(64) Line {
      char bytes[64];
    };
    thread_local std::vector<Line> scratch;
    for (Index task; (task = next_.fetch_add(1)) < tasks_;) {
      const std::size_t lines = scratch_bytes(call_) / sizeof(Line) + 1;
      if (scratch.size() < lines) scratch.resize(lines);
      const Index chunk = task % chunks_, strip = task / chunks_ % strips_;
      Task t{task / chunks_ / strips_, chunk * rows_, rows_, strip * kStrip, kStrip};
      t.rows = std::min(t.rows, call_.rows - t.row);
      t.columns = std::min(t.columns, call_.columns - t.column);
      run_(call_, t, scratch.data());
      if (done_.fetch_add(1) + 1 == tasks_) {
        std::lock_guard<std::mutex> lock(mutex_);
        all_done_.notify_all();
      }
    }
  }

  void wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    all_done_.wait(lock, [this] { return done_.load() == tasks_; });
  }

  const Contraction call_;
  const Kernels run_;
  Index strips_, rows_, chunks_, tasks_;
  std::atomic<Index> next_ = 0, done_ = 0;
  std::mutex mutex_;
  std::condition_variable all_done_;
};

bool number(ffi::DataType type, Number* found) {
  switch (type) {
    case ffi::F16: *found = Number::kF16; return true;
    case ffi::BF16: *found = Number::kBF16; return true;
    case ffi::F32: *found = Number::kF32; return true;
    case ffi::F64: *found = Number::kF64; return true;
    default: return false;
  }
}

using Buffers = std::initializer_list<ffi::AnyBuffer>;
using Shape = ffi::Span<const std::int64_t>;

std::string described(ffi::DataType type, Shape shape) {
  std::ostringstream text;
  text << type << '[';
  for (const auto& size : shape) text << (&size == shape.begin() ? "" : ",") << size;
  text << ']';
  return text.str();
}

ffi::Error wrong(const std::string& name, ffi::AnyBuffer buffer, const std::string& expected) {
  return ffi::Error::InvalidArgument("semijax: " + name + " is " +
                                     described(buffer.element_type(), buffer.dimensions()) +
                                     " and must " + expected);
}

// The error for the first of these buffers that has another type or shape, if one has.
ffi::Error expect(const std::string& name, Buffers buffers, ffi::DataType type, Shape shape) {
  for (const auto& buffer : buffers)
    if (buffer.element_type() != type || !(buffer.dimensions() == shape))
      return wrong(name + '[' + std::to_string(&buffer - buffers.begin()) + ']', buffer,
                   "be " + described(type, shape));
  return ffi::Error::Success();
}

// The contraction of these buffers: its kind and layout are given. Nothing relies on what Python
// checked, for anyone may call the handlers.
ffi::Error read(Contraction* call, ffi::AnyBuffer weights, Buffers elements, Buffers results) {
  const ffi::AnyBuffer& first = *elements.begin();
  const Shape w = weights.dimensions(), e = first.dimensions();
  const ffi::DataType type = first.element_type();
  const bool may_be_lists = call->kind == Kind::kLargest, lists = may_be_lists && e.size() == 4;
  if (w.size() != 3) return wrong("weights", weights, "have 3 axes");
  if (e.size() != 3 && !lists)
    return wrong("elements[0]", first, may_be_lists ? "have 3 axes, or 4 for lists" : "have 3 axes");
  if (lists && e[3] > kLongestList)
    return wrong("elements[0]", first,
                 "have no lists longer than " + std::to_string(kLongestList));
  if (type != ffi::F32 && type != ffi::F64) return wrong("elements[0]", first, "be F32 or F64");
  if (!number(weights.element_type(), &call->weight_type))
    return wrong("weights", weights, "be F16, BF16, F32 or F64");
  if (call->weight_type == Number::kF64 && type == ffi::F32)
    return wrong("weights", weights, "be no wider than the elements");

  const int m = call->weights_columns_first ? 2 : 1;  // the axis of rows, of the weights
  const int n = call->columns_first ? 1 : 2;          // … and that of columns, of the others
  call->f64 = type == ffi::F64;
  call->batch = w[0], call->rows = w[m], call->depth = w[3 - m], call->columns = e[n];
  call->list = lists ? e[3] : 0;
  std::int64_t shape[] = {call->batch, call->columns, call->columns, call->list};
  shape[3 - n] = call->depth;
  ffi::Error error = expect("elements", elements, type, Shape(shape, e.size()));
  if (error.failure()) return error;
  shape[3 - n] = call->rows;
  error = expect("result", results, type, Shape(shape, e.size()));
  if (error.failure()) return error;

  const auto data = [](const ffi::AnyBuffer& buffer) { return buffer.untyped_data(); };
  call->weights = weights.untyped_data();
  std::transform(elements.begin(), elements.end(), call->elements, data);
  std::transform(results.begin(), results.end(), call->result, data);
  return ffi::Error::Success();
}

ffi::Error contract(Kind kind, ffi::ThreadPool& pool, bool weights_columns_first,
                    bool columns_first, ffi::AnyBuffer weights, Buffers elements,
                    Buffers results) {
  Contraction call{};
  call.kind = kind;
  call.weights_columns_first = weights_columns_first;
  call.columns_first = columns_first;
  const ffi::Error error = read(&call, weights, elements, results);
  if (error.success() && results.begin()->element_count() > 0) Job::run(call, pool);
  return error;
}

using In = ffi::AnyBuffer;
using Out = ffi::Result<ffi::AnyBuffer>;

template <Kind kKind>
ffi::Error contract_one(ffi::ThreadPool pool, bool weights_columns_first, bool columns_first,
                        In weights, In elements, Out result) {
  return contract(kKind, pool, weights_columns_first, columns_first, weights, {elements}, {*result});
}
template <Kind kKind>
ffi::Error contract_two(ffi::ThreadPool pool, bool weights_columns_first, bool columns_first,
                        In weights, In first, In second, Out one, Out other) {
  return contract(kKind, pool, weights_columns_first, columns_first, weights, {first, second},
                  {*one, *other});
}

auto bind() {
  return ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Attr<bool>("weights_columns_first")
      .Attr<bool>("columns_first").Arg<In>();
}
auto bind_one() { return bind().Arg<In>().Ret<ffi::AnyBuffer>(); }
auto bind_two() {
  return bind().Arg<In>().Arg<In>().Ret<ffi::AnyBuffer>().Ret<ffi::AnyBuffer>();
}

}  // namespace
}  // namespace semijax

XLA_FFI_DEFINE_HANDLER_SYMBOL(semijax_largest, semijax::contract_one<semijax::Kind::kLargest>,
                              semijax::bind_one());
XLA_FFI_DEFINE_HANDLER_SYMBOL(semijax_count, semijax::contract_one<semijax::Kind::kCount>,
                              semijax::bind_one());
XLA_FFI_DEFINE_HANDLER_SYMBOL(semijax_mass, semijax::contract_one<semijax::Kind::kMass>,
                              semijax::bind_one());
XLA_FFI_DEFINE_HANDLER_SYMBOL(semijax_hull, semijax::contract_two<semijax::Kind::kHull>,
                              semijax::bind_two());
XLA_FFI_DEFINE_HANDLER_SYMBOL(semijax_mean, semijax::contract_two<semijax::Kind::kMean>,
                              semijax::bind_two());
XLA_FFI_DEFINE_HANDLER_SYMBOL(semijax_entropy, semijax::contract_two<semijax::Kind::kEntropy>,
                              semijax::bind_two());

// Whether there is a target of this name for this processor; it is used from now on.
extern "C" bool semijax_use(const char* name) {
  for (const auto& target : semijax::targets()) {
    if (std::string_view(name) != target.name) continue;
    semijax::chosen = &target;
    return true;
  }
  return false;
}

// The name of the target in use.
extern "C" const char* semijax_target() { return semijax::target().name; }
