// Contractions in semirings whose ⊕ selects, for the CPU:
//
//     result[b, m, n] = ⊕ₖ weights[b, m, k] ⊗ elements[b, k, n]
//
// It is the matrix product with other arithmetic, and made fast in the same way: a panel of the
// elements is packed so that its rows lie one after the other, and a tile of the result stays in
// registers while the contracted index k runs over the panel (Goto and van de Geijn 2008).
//
// This file is compiled once for every instruction set, as namespace SEMIJAX_TARGET, with the
// kernels alone; and once more with SEMIJAX_FFI, which adds what XLA calls and chooses the kernels
// when it runs. So that no function built for a newer processor is linked into code that runs on
// every one, the kernels use nothing of the standard library that is not a constant.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#define SEMIJAX_INLINE inline __attribute__((always_inline))

namespace semijax {

using Index = std::ptrdiff_t;

enum class Number { kF16, kBF16, kF32, kF64 };

// One call. Arrays are dense and row-major.
struct Contraction {
  bool hull;             // ⊕ is the hull of intervals; otherwise it keeps the largest sizes
  bool lists;            // an element is a list of sizes, −∞ where there is none; not one size
  Index numbers;         // of an element, interleaved in one array; a hull has two arrays of one
  Number weight_type;    // of the weights [batch, rows, depth]
  bool f64;              // the type of elements and result is float64; otherwise float32
  Index batch, rows, columns, depth;
  const void* weights;
  const void* elements[2];
  void* result[2];
};

// A call is cut into tasks: in each batch, strips of kStrip columns and chunks of some rows.
constexpr Index kStrip = 64, kMostRows = 128;

// A panel of elements stays in the first-level cache while rows of weights pass.
constexpr Index kPanelBytes = 24 << 10, kLongestPanel = 256, kShortestPanel = 16;

// Weights are converted for this many rows at once.
constexpr int kWeightRows = 16;

// The length that a list is padded to: mergers need a power of 2.
constexpr Index kLongestList = 32;
constexpr int padded(Index numbers) {
  int length = 1;
  while (length < numbers) length *= 2;
  return length;
}

// What a task needs besides operands and result, whatever the instruction set.
constexpr Index scratch_bytes(const Contraction& c) {
  const Index planes = c.hull ? 2 : padded(c.numbers), widest = planes > 2 ? 16 : kStrip;
  const Index panel = kPanelBytes + kShortestPanel * planes * widest * 8;
  return panel + (kMostRows * (planes + 1) * widest + kWeightRows * kLongestPanel) * 8;
}

// Rows [row, row + rows) and columns [column, column + columns) of one batch.
struct Task {
  Index batch, row, rows, column, columns;
};

}  // namespace semijax

namespace semijax::SEMIJAX_TARGET {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64, kRegisters = 32;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32, kRegisters = 16;
#elif defined(__aarch64__)
constexpr int kVectorBytes = 16, kRegisters = 32;
#else
constexpr int kVectorBytes = 16, kRegisters = 16;
#endif

// The compiler's own vectors: it knows the instructions for + − × < and selection.
template <typename T>
struct VectorOf {
  typedef T type __attribute__((vector_size(kVectorBytes)));
};
template <typename T>
using Vector = typename VectorOf<T>::type;
template <typename T>
constexpr int kLanes = kVectorBytes / int{sizeof(T)};

template <typename T>
SEMIJAX_INLINE Vector<T> load(const T* from) {
  Vector<T> v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
template <typename T>
SEMIJAX_INLINE void store(T* to, Vector<T> v) {
  std::memcpy(to, &v, sizeof v);
}
template <typename T>
SEMIJAX_INLINE Vector<T> splat(T x) {
  return x - Vector<T>{};
}
// Of two numbers; where x is not a number, y.
template <typename V>
SEMIJAX_INLINE V larger(V x, V y) {
  return x > y ? x : y;
}
template <typename V>
SEMIJAX_INLINE V smaller(V x, V y) {
  return x < y ? x : y;
}

template <typename T>
using Bits = std::conditional_t<sizeof(T) == 8, std::int64_t, std::int32_t>;
template <typename T>
constexpr T kInfinity = std::numeric_limits<T>::infinity();

template <typename To, typename From>
SEMIJAX_INLINE To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}
template <typename T>
constexpr Bits<T> kMagnitude = std::numeric_limits<Bits<T>>::max();
template <typename T>
SEMIJAX_INLINE T magnitude(T x) {
  return bits_as<T>(bits_as<Bits<T>>(x) & kMagnitude<T>);
}

// Whether all are finite or the number `also`. The largest bits tell, without a branch.
template <typename T>
SEMIJAX_INLINE bool all_finite(const T* x, Index count, T also) {
  const Bits<T> other = bits_as<Bits<T>>(also);
  Bits<T> worst = 0;
  for (Index i = 0; i < count; ++i) {
    const Bits<T> bits = bits_as<Bits<T>>(x[i]);
    const Bits<T> size = bits == other ? 0 : bits & kMagnitude<T>;
    worst = worst > size ? worst : size;
  }
  return worst < bits_as<Bits<T>>(kInfinity<T>);
}

// Copies numbers that lie `step` apart.
template <typename T>
SEMIJAX_INLINE void gather(const T* from, Index step, T* to, Index count) {
  if (step == 1)
    for (Index i = 0; i < count; ++i) to[i] = from[i];
  else
    for (Index i = 0; i < count; ++i) to[i] = from[i * step];
}
template <typename T>
SEMIJAX_INLINE void scatter(const T* from, T* to, Index step, Index count) {
  if (step == 1)
    for (Index i = 0; i < count; ++i) to[i] = from[i];
  else
    for (Index i = 0; i < count; ++i) to[i * step] = from[i];
}

// Narrow floating point numbers, widened by their bits.
struct F16 {
  std::uint16_t bits;
  SEMIJAX_INLINE operator float() const {
    const std::uint32_t sign = (bits & 0x8000u) << 16, rest = (bits & 0x7fffu) << 13;
    const std::uint32_t exponent = rest & (0x1fu << 23), hidden = 113u << 23;  // 2⁻¹⁴
    // Subnormals lack the hidden bit; infinity and NaN have the largest exponent here and there.
    const float x = exponent == 0 ? bits_as<float>(rest | hidden) - bits_as<float>(hidden)
                                  : bits_as<float>(rest + (exponent == 0x1fu << 23 ? 224u << 23
                                                                                   : 112u << 23));
    return bits_as<float>(bits_as<std::uint32_t>(x) | sign);
  }
};
struct BF16 {
  std::uint16_t bits;
  SEMIJAX_INLINE operator float() const { return bits_as<float>(std::uint32_t{bits} << 16); }
};

template <class S, typename T, typename W>
SEMIJAX_INLINE void convert(const S& semiring, const W* from, T* to, Index count) {
  for (Index i = 0; i < count; ++i) to[i] = semiring.weight(static_cast<T>(from[i]));
}

// `count` weights of a call from position `at` on, as the semiring wants them.
template <class S, typename T>
void load_weights(const S& semiring, const Contraction& call, Index at, T* to, Index count) {
  switch (call.weight_type) {
    case Number::kF16: return convert(semiring, static_cast<const F16*>(call.weights) + at, to, count);
    case Number::kBF16: return convert(semiring, static_cast<const BF16*>(call.weights) + at, to, count);
    case Number::kF32: return convert(semiring, static_cast<const float*>(call.weights) + at, to, count);
    case Number::kF64: return convert(semiring, static_cast<const double*>(call.weights) + at, to, count);
  }
}

// How many rows of the result a tile has, so that half of the registers hold it.
template <class S, int C>
constexpr int tile_rows() {
  constexpr int rows = kRegisters / 2 / (S::kPlanes * C);
  return rows < 1 ? 1 : rows > kWeightRows ? kWeightRows : rows;
}

// An element as numbers, and the tile of the result that stays in registers: R rows of C vectors.
// The panel holds for every k the planes of its elements one after the other, so does the state for
// every row. Products that are not numbers are left out here: `unknown` finds them.

// The kPlanes largest sizes, descending.
template <typename T, int K>
struct Largest {
  static constexpr int kPlanes = K;
  static constexpr int kVectors = K > 1 ? 1 : kRegisters / 8;
  T absent;

  explicit Largest(const Contraction& c) : absent(c.lists ? -kInfinity<T> : 0) {}

  T zero(int) const { return absent; }
  T weight(T w) const { return magnitude(w); }

  template <int C, int R>
  static SEMIJAX_INLINE void tile(Index depth, const T* weights, Index stride, const T* panel,
                                  T* state) {
    using V = Vector<T>;
    constexpr int N = C * kLanes<T>;
    V best[R][C][K];
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c)
        for (int p = 0; p < K; ++p) best[r][c][p] = load(state + (r * K + p) * N + c * kLanes<T>);
    for (Index k = 0; k < depth; ++k, panel += K * N) {
      for (int r = 0; r < R; ++r) {
        const V w = splat(weights[r * stride + k]);
        for (int c = 0; c < C; ++c) {
          // Of two descending lists, the larger of a[p] and b[K−1−p] for every p are the K largest
          // of both, and a bitonic sequence, which Batcher's merger sorts.
          V(&a)[K] = best[r][c];
          for (int p = 0; p < K; ++p)
            a[p] = larger<V>(w * load(panel + (K - 1 - p) * N + c * kLanes<T>), a[p]);
          for (int step = K / 2; step > 0; step /= 2) {
            for (int p = 0; p < K; ++p) {
              if (p & step) continue;
              const V x = a[p], y = a[p + step];
              a[p] = larger<V>(x, y);
              a[p + step] = smaller<V>(x, y);
            }
          }
        }
      }
    }
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c)
        for (int p = 0; p < K; ++p) store(state + (r * K + p) * N + c * kLanes<T>, best[r][c][p]);
  }

  // Whether a product is not a number, for elements `step` apart.
  bool unknown(T w, const T* element, Index step) const {
    for (int p = 0; p < K; ++p) {
      const T product = w * element[p * step];
      if (element[p * step] != -kInfinity<T> && product != product) return true;
    }
    return false;
  }
};

// The hull of intervals [low, high]; the first plane is high. The empty one is [∞, −∞].
template <typename T>
struct Hull {
  static constexpr int kPlanes = 2;
  static constexpr int kVectors = kRegisters / 8;

  explicit Hull(const Contraction&) {}

  T zero(int plane) const { return plane == 0 ? -kInfinity<T> : kInfinity<T>; }
  T weight(T w) const { return w; }

  template <int C, int R>
  static SEMIJAX_INLINE void tile(Index depth, const T* weights, Index stride, const T* panel,
                                  T* state) {
    using V = Vector<T>;
    constexpr int N = C * kLanes<T>;
    V high[R][C], low[R][C];
    for (int r = 0; r < R; ++r) {
      for (int c = 0; c < C; ++c) {
        high[r][c] = load(state + 2 * r * N + c * kLanes<T>);
        low[r][c] = load(state + (2 * r + 1) * N + c * kLanes<T>);
      }
    }
    for (Index k = 0; k < depth; ++k, panel += 2 * N) {
      for (int r = 0; r < R; ++r) {
        // A negative weight swaps the ends.
        const T number = weights[r * stride + k];
        const Index swap = (bits_as<Bits<T>>(number) >> (8 * sizeof(T) - 1)) & N;
        const T *upper = panel + swap, *lower = panel + (swap ^ N);
        const V w = splat(number);
        for (int c = 0; c < C; ++c) {
          high[r][c] = larger<V>(w * load(upper + c * kLanes<T>), high[r][c]);
          low[r][c] = smaller<V>(w * load(lower + c * kLanes<T>), low[r][c]);
        }
      }
    }
    for (int r = 0; r < R; ++r) {
      for (int c = 0; c < C; ++c) {
        store(state + 2 * r * N + c * kLanes<T>, high[r][c]);
        store(state + (2 * r + 1) * N + c * kLanes<T>, low[r][c]);
      }
    }
  }

  bool unknown(T w, const T* element, Index step) const {
    const bool empty = element[0] < element[step];
    const T a = w * (empty ? 0 : element[0]), b = w * (empty ? 0 : element[step]);
    return a != a || b != b;
  }
};

// As many rows of tiles as there are, in tiles of R rows and then of fewer.
template <class S, typename T, int C, int R>
SEMIJAX_INLINE void tiles(Index rows, Index depth, const T* weights, Index stride, const T* panel,
                          T* state) {
  constexpr int kRow = S::kPlanes * C * kLanes<T>;
  Index r = 0;
  for (; r + R <= rows; r += R)
    S::template tile<C, R>(depth, weights + r * stride, stride, panel, state + r * kRow);
  if constexpr (R > 1)
    if (r < rows)
      tiles<S, T, C, R / 2>(rows - r, depth, weights + r * stride, stride, panel, state + r * kRow);
}

// A task, or the part of its columns that C vectors hold.
template <class S, typename T, int C>
void contract(const Contraction& call, const Task& task, T* scratch) {
  constexpr int N = C * kLanes<T>, P = S::kPlanes;
  constexpr Index fitting = kPanelBytes / (P * N * Index{sizeof(T)});
  constexpr Index longest = fitting < kShortestPanel  ? kShortestPanel
                            : fitting > kLongestPanel ? kLongestPanel
                                                      : fitting;
  const S semiring(call);
  const Index numbers = call.hull ? 1 : call.numbers;
  T *panel = scratch, *weights = panel + longest * P * N, *state = weights + kWeightRows * longest,
    *unknown = state + task.rows * P * N;
  bool any_unknown = false;
  const auto plane = [&](auto* arrays, Index at, int p) {
    return call.hull ? static_cast<T*>(const_cast<void*>(arrays[p])) + at
                     : static_cast<T*>(const_cast<void*>(arrays[0])) + at * numbers + p;
  };

  for (Index r = 0; r < task.rows; ++r)
    for (int p = 0; p < P; ++p)
      for (int n = 0; n < N; ++n) state[(r * P + p) * N + n] = semiring.zero(p);

  for (Index first = 0; first < call.depth; first += longest) {
    const Index depth = call.depth - first < longest ? call.depth - first : longest;
    bool finite = true;
    for (Index k = 0; k < depth; ++k) {
      const Index at = (task.batch * call.depth + first + k) * call.columns + task.column;
      for (int p = 0; p < P; ++p) {
        T* to = panel + (k * P + p) * N;
        const bool padding = !call.hull && p >= numbers;
        const Index columns = padding ? 0 : task.columns;
        gather(plane(call.elements, at, p), numbers, to, columns);
        for (Index n = columns; n < N; ++n) to[n] = semiring.zero(p);
        finite &= all_finite(to, N, semiring.zero(p));
      }
    }
    for (Index row = 0; row < task.rows; row += kWeightRows) {
      const Index rows = task.rows - row < kWeightRows ? task.rows - row : kWeightRows;
      bool finite_too = finite;
      for (Index r = 0; r < rows; ++r) {
        const Index at = (task.batch * call.rows + task.row + row + r) * call.depth + first;
        T* to = weights + r * longest;
        load_weights(semiring, call, at, to, depth);
        finite_too &= all_finite(to, depth, T{0});
      }
      tiles<S, T, C, tile_rows<S, C>()>(rows, depth, weights, longest, panel, state + row * P * N);
      if (finite_too) continue;
      if (!any_unknown) std::memset(unknown, 0, task.rows * N * sizeof(T));
      any_unknown = true;
      for (Index r = 0; r < rows; ++r)
        for (Index k = 0; k < depth; ++k)
          for (int n = 0; n < N; ++n)
            if (semiring.unknown(weights[r * longest + k], panel + k * P * N + n, N))
              unknown[(row + r) * N + n] = 1;
    }
  }

  for (Index r = 0; r < task.rows; ++r) {
    const Index at = (task.batch * call.rows + task.row + r) * call.columns + task.column;
    for (int p = 0; p < (call.hull ? P : numbers); ++p) {
      T* found = state + (r * P + p) * N;
      for (int n = 0; n < N; ++n) found[n] += 0;  // no −0
      if (any_unknown)
        for (int n = 0; n < N; ++n)
          if (unknown[r * N + n] != 0) found[n] = std::numeric_limits<T>::quiet_NaN();
      scatter(found, plane(call.result, at, p), numbers, task.columns);
    }
  }
}

template <class S, typename T>
void contract_strip(const Contraction& call, Task task, T* scratch) {
  const Index end = task.column + task.columns;
  for (; task.column < end; task.column += task.columns) {
    constexpr Index L = kLanes<T>;
    const Index left = end - task.column;
    const int vectors = S::kVectors >= 4 && left > 3 * L ? 4 : S::kVectors >= 2 && left > L ? 2 : 1;
    task.columns = left < vectors * L ? left : vectors * L;
    if constexpr (S::kVectors >= 4)
      if (vectors == 4) contract<S, T, 4>(call, task, scratch);
    if constexpr (S::kVectors >= 2)
      if (vectors == 2) contract<S, T, 2>(call, task, scratch);
    if (vectors == 1) contract<S, T, 1>(call, task, scratch);
  }
}

template <typename T>
void run_on(const Contraction& call, const Task& task, void* memory) {
  T* scratch = static_cast<T*>(memory);
  if (call.hull) return contract_strip<Hull<T>>(call, task, scratch);
  switch (padded(call.numbers)) {
    case 1: return contract_strip<Largest<T, 1>>(call, task, scratch);
    case 2: return contract_strip<Largest<T, 2>>(call, task, scratch);
    case 4: return contract_strip<Largest<T, 4>>(call, task, scratch);
    case 8: return contract_strip<Largest<T, 8>>(call, task, scratch);
    case 16: return contract_strip<Largest<T, 16>>(call, task, scratch);
    default: return contract_strip<Largest<T, kLongestList>>(call, task, scratch);
  }
}

}  // namespace

void run(const Contraction& call, const Task& task, void* scratch) {
  call.f64 ? run_on<double>(call, task, scratch) : run_on<float>(call, task, scratch);
}

}  // namespace semijax::SEMIJAX_TARGET

#ifdef SEMIJAX_FFI

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace semijax {

#if defined(__x86_64__)
namespace avx512 {
void run(const Contraction&, const Task&, void*);
}
namespace avx2 {
void run(const Contraction&, const Task&, void*);
}
#endif

namespace {

namespace ffi = xla::ffi;

struct Target {
  const char* name;
  void (*run)(const Contraction&, const Task&, void*);
};

// What this processor can run, the best first.
const std::vector<Target>& targets() {
  static const std::vector<Target> found = [] {
    std::vector<Target> all;
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool fma = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    if (fma && wide) all.push_back({"avx512", avx512::run});
    if (fma) all.push_back({"avx2", avx2::run});
#endif
    all.push_back({"baseline", SEMIJAX_TARGET::run});
    return all;
  }();
  return found;
}

std::atomic<const Target*> chosen = nullptr;

const Target& target() {
  const Target* forced = chosen.load();
  return forced ? *forced : targets().front();
}

// The tasks of a call, taken in turn by the thread that XLA called and by helpers from its pool.
class Job : public std::enable_shared_from_this<Job> {
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

  static void run(const Contraction& call, ffi::ThreadPool& pool) {
    const double products = double(call.batch) * call.rows * call.columns * call.depth * call.numbers;
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
  void help() {
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
  void (*const run_)(const Contraction&, const Task&, void*);
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

ffi::Error run(ffi::ThreadPool& pool, ffi::AnyBuffer weights,
               std::initializer_list<ffi::AnyBuffer> elements,
               std::initializer_list<void*> results) {
  const auto w = weights.dimensions(), e = elements.begin()->dimensions();
  Contraction call{};
  call.hull = elements.size() == 2;
  call.lists = e.size() == 4;
  if (w.size() != 3 || e.size() < 3 || e.size() > 4 || w[0] != e[0] || w[2] != e[1])
    return ffi::Error::InvalidArgument("weights [B, M, K] and elements [B, K, N] expected");
  call.batch = w[0], call.rows = w[1], call.depth = w[2], call.columns = e[2];
  call.numbers = call.lists ? e[3] : 1;
  if (call.numbers > kLongestList) return ffi::Error::InvalidArgument("too long lists");
  if (!number(weights.element_type(), &call.weight_type))
    return ffi::Error::InvalidArgument("weights must be floating point numbers");
  const auto type = elements.begin()->element_type();
  if (type != ffi::F32 && type != ffi::F64)
    return ffi::Error::InvalidArgument("elements must be float32 or float64");
  call.f64 = type == ffi::F64;
  call.weights = weights.untyped_data();
  std::transform(elements.begin(), elements.end(), call.elements,
                 [](const ffi::AnyBuffer& buffer) { return buffer.untyped_data(); });
  std::copy(results.begin(), results.end(), call.result);
  if (call.batch && call.rows && call.columns && call.numbers) Job::run(call, pool);
  return ffi::Error::Success();
}

ffi::Error largest(ffi::ThreadPool pool, ffi::AnyBuffer weights, ffi::AnyBuffer elements,
                   ffi::Result<ffi::AnyBuffer> result) {
  return run(pool, weights, {elements}, {result->untyped_data()});
}

ffi::Error hull(ffi::ThreadPool pool, ffi::AnyBuffer weights, ffi::AnyBuffer high,
                ffi::AnyBuffer low, ffi::Result<ffi::AnyBuffer> highest,
                ffi::Result<ffi::AnyBuffer> lowest) {
  return run(pool, weights, {high, low}, {highest->untyped_data(), lowest->untyped_data()});
}

}  // namespace
}  // namespace semijax

// Whether there is such a target for this processor; it is used from now on.
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

XLA_FFI_DEFINE_HANDLER_SYMBOL(semijax_largest, semijax::largest,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Ret<xla::ffi::AnyBuffer>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(semijax_hull, semijax::hull,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Ret<xla::ffi::AnyBuffer>()
                                  .Ret<xla::ffi::AnyBuffer>());

#endif  // SEMIJAX_FFI
