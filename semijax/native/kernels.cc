// The contractions of a task, for one instruction set: compiled once for each of them, as namespace
// SEMIJAX_TARGET.
//
// A contraction is the matrix product with other arithmetic, and is made fast in the same way: a
// panel of the elements is packed so that its rows lie one after the other, and a tile of the result
// stays in registers while the contracted index k runs over the panel (Goto and van de Geijn 2008).
//
// Nothing here but `run` can be linked with anything else, so that no function built for a newer
// processor ends up in code for every one: all is in an unnamed namespace, and of the standard
// library's templates only constants are used.

#include "contraction.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#define SEMIJAX_INLINE inline __attribute__((always_inline))

namespace semijax::SEMIJAX_TARGET {
namespace {

// Vectors are the compiler's own: it knows the instructions for + − × < and selection.

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64, kRegisters = 32;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32, kRegisters = 16;
#elif defined(__aarch64__)
constexpr int kVectorBytes = 16, kRegisters = 32;
#else
constexpr int kVectorBytes = 16, kRegisters = 16;
#endif

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

// Floating point numbers as bits.

template <typename T>
using Bits = std::conditional_t<sizeof(T) == 8, std::int64_t, std::int32_t>;
template <typename T>
constexpr T kInfinity = std::numeric_limits<T>::infinity();
template <typename T>
constexpr T kNaN = std::numeric_limits<T>::quiet_NaN();
template <typename T>
constexpr Bits<T> kMagnitude = std::numeric_limits<Bits<T>>::max();
template <typename T>
constexpr int kMantissa = std::numeric_limits<T>::digits - 1;
template <typename T>
constexpr int kBias = std::numeric_limits<T>::max_exponent - 1;

template <typename To, typename From>
SEMIJAX_INLINE To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}
template <typename T>
SEMIJAX_INLINE T magnitude(T x) {
  return bits_as<T>(bits_as<Bits<T>>(x) & kMagnitude<T>);
}

// The bits of the largest magnitude, with NaN above infinity; `ignored` is left out.
template <typename T>
SEMIJAX_INLINE Bits<T> largest_bits(const T* x, Index count, T ignored) {
  const Bits<T> other = bits_as<Bits<T>>(ignored);
  Bits<T> largest = 0;
  for (Index i = 0; i < count; ++i) {
    const Bits<T> bits = bits_as<Bits<T>>(x[i]);
    const Bits<T> size = bits == other ? 0 : bits & kMagnitude<T>;
    largest = largest > size ? largest : size;
  }
  return largest;
}
template <typename T>
SEMIJAX_INLINE bool is_finite(Bits<T> bits) {
  return bits < bits_as<Bits<T>>(kInfinity<T>);
}

template <typename T>
inline T largest_of(const T* x, Index count) {
  Vector<T> largest = splat(-kInfinity<T>);
  Index i = 0;
  for (; i + kLanes<T> <= count; i += kLanes<T>) largest = larger<Vector<T>>(load(x + i), largest);
  T found = -kInfinity<T>;
  for (int lane = 0; lane < kLanes<T>; ++lane) found = larger<T>(largest[lane], found);
  for (; i < count; ++i) found = larger<T>(x[i], found);
  return found;
}

// 2ⁿ, for an n of which that is a normal number.
template <typename T>
SEMIJAX_INLINE T power_of_2(Index n) {
  return bits_as<T>(static_cast<Bits<T>>(n + kBias<T>) << kMantissa<T>);
}

// Vectors of exponentials and logarithms, right to two or three units in the last place.

template <typename T>
constexpr T kLog2 = T(0.693147180559945309417232121458);

// Of numbers that are not positive: eˣ = 2ⁿ eʳ with |r| ≤ log √2, and Taylor's series.
template <typename T>
SEMIJAX_INLINE Vector<T> exponential(Vector<T> x) {
  using V = Vector<T>;
  using Integers = Vector<Bits<T>>;
  constexpr int terms = sizeof(T) == 8 ? 13 : 7;
  constexpr T smallest = -kLog2<T> * (kBias<T> - 1);
  // Adding 1.5 · 2^mantissa rounds to an integer. log 2 in two parts, the first with few bits.
  constexpr T rounding = T(3) * (Index{1} << (kMantissa<T> - 1));
  constexpr T high = sizeof(T) == 8 ? T(0x1.62e42fefap-1) : T(0x1.62e4p-1);
  constexpr T low = sizeof(T) == 8 ? T(0x1.cf79abc9e3b39p-40) : T(0x1.7f7d1cp-20);
  const V bounded = larger<V>(x, splat(smallest));
  const V n = (bounded * (1 / kLog2<T>) + rounding) - rounding;
  const V r = (bounded - n * high) - n * low;
  V sum = splat(T(1));
  for (int i = terms; i > 0; --i) sum = sum * r * (T(1) / i) + 1;
  const Integers scale = (__builtin_convertvector(n, Integers) + kBias<T>) << kMantissa<T>;
  const V found = sum * bits_as<V>(scale);
  return x >= smallest ? found : x < smallest ? V{} : x;  // NaN stays
}

// Of positive normal numbers, m · 2ⁿ with √½ < m ≤ √2: log m = 2 artanh((m − 1) / (m + 1)).
template <typename T>
SEMIJAX_INLINE Vector<T> logarithm(Vector<T> x) {
  using V = Vector<T>;
  using Integers = Vector<Bits<T>>;
  constexpr int terms = sizeof(T) == 8 ? 10 : 5;
  constexpr Bits<T> one = Bits<T>{kBias<T>} << kMantissa<T>;
  constexpr Bits<T> fraction = (Bits<T>{1} << kMantissa<T>) - 1;
  const Integers bits = bits_as<Integers>(x);
  V m = bits_as<V>((bits & fraction) | one);
  V n = __builtin_convertvector((bits >> kMantissa<T>) - kBias<T>, V);
  const auto upper = m > T(1.41421356237309504880);
  m = upper ? m * T(0.5) : m;
  n = upper ? n + 1 : n;
  const V s = (m - 1) / (m + 1), square = s * s;
  V sum = splat(T(1) / (2 * terms + 1));
  for (int i = terms - 1; i >= 0; --i) sum = sum * square + T(1) / (2 * i + 1);
  return n * kLog2<T> + 2 * s * sum;
}

// Weights may be narrower than what they are multiplied with.

struct F16 {
  std::uint16_t bits;
  SEMIJAX_INLINE operator float() const {
    const std::uint32_t sign = (bits & 0x8000u) << 16, rest = (bits & 0x7fffu) << 13;
    const std::uint32_t exponent = rest & (0x1fu << 23), hidden = 113u << 23;  // 2⁻¹⁴
    // Subnormals lack the hidden bit; infinity and NaN have the largest exponent here and there.
    const std::uint32_t shift = exponent == 0x1fu << 23 ? 224u << 23 : 112u << 23;
    const float x = exponent == 0 ? bits_as<float>(rest | hidden) - bits_as<float>(hidden)
                                  : bits_as<float>(rest + shift);
    return bits_as<float>(bits_as<std::uint32_t>(x) | sign);
  }
};
struct BF16 {
  std::uint16_t bits;
  SEMIJAX_INLINE operator float() const { return bits_as<float>(std::uint32_t{bits} << 16); }
};

// Elements in memory: with the columns one after the other, or with the rows.

template <typename T>
struct Matrix {
  T* data;
  Index row, column;  // how far it is to the next

  SEMIJAX_INLINE T* at(Index r, Index c) const { return data + r * row + c * column; }
  Matrix transposed() const { return {data, column, row}; }
};

// The columns of a task, for every k.
template <typename T>
inline Matrix<const T> elements_of(const Contraction& call, const Task& task, int array) {
  const Index size = interleaved(call), columns = call.columns_first ? call.depth * size : size;
  const Index rows = call.columns_first ? size : call.columns * size;
  return {static_cast<const T*>(call.elements[array]) +
              task.batch * call.depth * call.columns * size + task.column * columns,
          rows, columns};
}
// The rows and columns of a task.
template <typename T>
inline Matrix<T> result_of(const Contraction& call, const Task& task, int array) {
  const Index size = interleaved(call), columns = call.columns_first ? call.rows * size : size;
  const Index rows = call.columns_first ? size : call.columns * size;
  return {static_cast<T*>(call.result[array]) + task.batch * call.rows * call.columns * size +
              task.row * rows + task.column * columns,
          rows, columns};
}

// Blocks of as many rows as columns are transposed in registers: in step S, what is in the places of
// odd S of a row changes places with what is in those of even S, S rows below.

#if defined(__clang__) || __GNUC__ >= 12
#define SEMIJAX_SHUFFLE(x, y, ...) __builtin_shufflevector(x, y, __VA_ARGS__)
#else
#define SEMIJAX_SHUFFLE(x, y, ...) __builtin_shuffle(x, y, Vector<Bits<T>>{__VA_ARGS__})
#endif

template <typename T, int S, int... I>
SEMIJAX_INLINE void exchange(Vector<T>& x, Vector<T>& y, std::integer_sequence<int, I...>) {
  constexpr int L = kLanes<T>;
  const Vector<T> a = x, b = y;
  x = SEMIJAX_SHUFFLE(a, b, (I & S ? I - S + L : I)...);
  y = SEMIJAX_SHUFFLE(a, b, (I & S ? I + L : I + S)...);
}
template <typename T, int S = 1>
SEMIJAX_INLINE void transpose(Vector<T> (&rows)[kLanes<T>]) {
  if constexpr (S < kLanes<T>) {
    for (int i = 0; i < kLanes<T>; ++i)
      if (!(i & S))
        exchange<T, S>(rows[i], rows[i + S], std::make_integer_sequence<int, kLanes<T>>());
    transpose<T, 2 * S>(rows);
  }
}

template <typename T>
SEMIJAX_INLINE void copy_each(Matrix<const T> from, Matrix<T> to, Index row, Index rows,
                              Index column, Index columns) {
  for (Index r = row; r < rows; ++r)
    for (Index c = column; c < columns; ++c) *to.at(r, c) = *from.at(r, c);
}
template <typename T>
void copy(Matrix<const T> from, Matrix<T> to, Index rows, Index columns) {
  constexpr int L = kLanes<T>;
  if (from.column == 1 && to.row == 1) {
    copy<T>(from.transposed(), to.transposed(), columns, rows);
  } else if (from.row == 1 && to.column == 1) {
    Index r = 0;
    for (; r + L <= rows; r += L) {
      Index c = 0;
      for (; c + L <= columns; c += L) {
        Vector<T> block[L];
        for (int i = 0; i < L; ++i) block[i] = load(from.at(r, c + i));
        transpose<T>(block);
        for (int i = 0; i < L; ++i) store(to.at(r + i, c), block[i]);
      }
      copy_each(from, to, r, r + L, c, columns);
    }
    copy_each(from, to, r, rows, 0, columns);
  } else if (from.column == 1 && to.column == 1) {
    for (Index r = 0; r < rows; ++r)
      for (Index c = 0; c < columns; ++c) to.at(r, 0)[c] = from.at(r, 0)[c];
  } else {
    copy_each(from, to, 0, rows, 0, columns);
  }
}
// The same for elements of several numbers, `from_number` and `to_number` apart.
template <typename T>
void copy_lists(Matrix<const T> from, Index from_number, Matrix<T> to, Index to_number,
                Index numbers, Index rows, Index columns) {
  if (from.row == numbers * from_number && to.row == numbers * to_number)  // as if they were rows
    return copy<T>({from.data, from_number, from.column}, {to.data, to_number, to.column},
                   rows * numbers, columns);
  for (Index i = 0; i < numbers; ++i)
    copy<T>({from.data + i * from_number, from.row, from.column},
            {to.data + i * to_number, to.row, to.column}, rows, columns);
}

// `rows` rows of `depth` weights, from `row` and k on, as rows of `kLongestPanel` numbers.
template <typename T, typename W>
void convert(const Contraction& call, Index batch, Index row, Index rows, Index k, Index depth,
             T* to) {
  const W* all = static_cast<const W*>(call.weights) + batch * call.rows * call.depth;
  const Matrix<const W> from = call.weights_columns_first
                                   ? Matrix<const W>{all + k * call.rows + row, 1, call.rows}
                                   : Matrix<const W>{all + row * call.depth + k, call.depth, 1};
  if constexpr (std::is_same_v<T, W>) {
    copy<T>(from, {to, kLongestPanel, 1}, rows, depth);
  } else {
    for (Index r = 0; r < rows; ++r)
      for (Index c = 0; c < depth; ++c)
        to[r * kLongestPanel + c] = static_cast<T>(*from.at(r, c));
  }
}
template <typename T>
void load_weights(const Contraction& call, Index batch, Index row, Index rows, Index k,
                  Index depth, T* to) {
  switch (call.weight_type) {
    case Number::kF16:
      return convert<T, F16>(call, batch, row, rows, k, depth, to);
    case Number::kBF16:
      return convert<T, BF16>(call, batch, row, rows, k, depth, to);
    case Number::kF32:
      return convert<T, float>(call, batch, row, rows, k, depth, to);
    case Number::kF64:
      return convert<T, double>(call, batch, row, rows, k, depth, to);
  }
}

// What a semiring brings to the loop at the end of this file. The panel holds for every k, the state
// for every row, kPlanes vectors of N numbers one after the other; the converted weights are rows
// of `kLongestPanel` numbers. A tile is R rows of D vectors of the state, which stay in registers.
//
//   begin      before everything, with scratch memory of its own
//   pack       elements [first, first + depth) into the panel
//   lift       some rows of weights
//   tile       ⊕ the products of lifted weights and the panel to the state
//   after      what is left to do for those rows
//   finish     from the state to the result

// Semirings whose ⊕ selects. Products that are not numbers are left out of the tiles; `unknown`
// marks where there are some. That is looked for only where an operand is not finite.
template <class S, typename T, int N>
struct Selecting {
  const Contraction& call;
  const Task& task;
  T* marks;
  bool finite_panel = true, any_unknown = false;

  Selecting(const Contraction& call, const Task& task, T* scratch)
      : call(call), task(task), marks(scratch) {}

  const S& self() const { return static_cast<const S&>(*this); }

  void begin(T* state) {
    for (Index r = 0; r < task.rows; ++r)
      for (int p = 0; p < S::kPlanes; ++p)
        for (int n = 0; n < N; ++n) state[(r * S::kPlanes + p) * N + n] = self().zero(p);
  }

  void pack(Index first, Index depth, T* panel) {
    for (int array = 0; array < S::kArrays; ++array) {
      const auto from = elements_of<T>(call, task, array);
      copy_lists<T>({from.at(first, 0), from.row, from.column}, 1,
                    {panel + array * N, S::kPlanes * N, 1}, N, interleaved(call), depth,
                    task.columns);
    }
    finite_panel = true;
    for (Index k = 0; k < depth; ++k) {
      for (int p = 0; p < S::kPlanes; ++p) {
        T* to = panel + (k * S::kPlanes + p) * N;
        for (Index n = p < self().numbers() ? task.columns : 0; n < N; ++n) to[n] = self().zero(p);
        finite_panel &= is_finite<T>(largest_bits(to, N, self().zero(p)));
      }
    }
  }

  void lift(Index row, Index rows, Index first, Index depth, T* weights) {
    load_weights(call, task.batch, task.row + row, rows, first, depth, weights);
    for (Index r = 0; r < rows; ++r) {
      T* w = weights + r * kLongestPanel;
      for (Index k = 0; k < depth; ++k) w[k] = self().weight(w[k]);
    }
  }

  void after(Index row, Index rows, Index depth, const T* weights, const T* panel) {
    bool finite = finite_panel;
    for (Index r = 0; r < rows; ++r)
      finite &= is_finite<T>(largest_bits(weights + r * kLongestPanel, depth, T{0}));
    if (finite) return;
    if (!any_unknown) std::memset(marks, 0, task.rows * N * sizeof(T));
    any_unknown = true;
    for (Index r = 0; r < rows; ++r)
      for (Index k = 0; k < depth; ++k)
        for (int n = 0; n < N; ++n)
          if (self().unknown(weights[r * kLongestPanel + k], panel + k * S::kPlanes * N + n))
            marks[(row + r) * N + n] = 1;
  }

  void finish(T* state) {
    for (Index r = 0; r < task.rows; ++r) {
      for (int p = 0; p < self().numbers(); ++p) {
        T* found = state + (r * S::kPlanes + p) * N;
        for (int n = 0; n < N; ++n) found[n] += 0;  // no −0
        if (any_unknown)
          for (int n = 0; n < N; ++n) found[n] = marks[r * N + n] != 0 ? kNaN<T> : found[n];
      }
    }
    for (int array = 0; array < S::kArrays; ++array)
      copy_lists<T>({state + array * N, S::kPlanes * N, 1}, N, result_of<T>(call, task, array), 1,
                    interleaved(call), task.rows, task.columns);
  }
};

// The K largest sizes, descending.
template <typename T, int C, int K>
struct Largest : Selecting<Largest<T, C, K>, T, C * kLanes<T>> {
  static constexpr int kPlanes = K, kArrays = 1, N = C * kLanes<T>;
  using Selecting<Largest, T, N>::Selecting, Selecting<Largest, T, N>::call,
      Selecting<Largest, T, N>::task;

  int numbers() const { return static_cast<int>(interleaved(call)); }
  T zero(int) const { return call.list ? -kInfinity<T> : 0; }
  T weight(T w) const { return magnitude(w); }

  template <int R, int D>
  static SEMIJAX_INLINE void tile(Index depth, const T* weights, const T* panel, T* state) {
    using V = Vector<T>;
    V best[R][D][K];
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < D; ++c)
        for (int p = 0; p < K; ++p) best[r][c][p] = load(state + (r * K + p) * N + c * kLanes<T>);
    for (Index k = 0; k < depth; ++k, panel += K * N) {
      for (int r = 0; r < R; ++r) {
        const V w = splat(weights[r * kLongestPanel + k]);
        for (int c = 0; c < D; ++c) {
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
      for (int c = 0; c < D; ++c)
        for (int p = 0; p < K; ++p) store(state + (r * K + p) * N + c * kLanes<T>, best[r][c][p]);
  }

  bool unknown(T w, const T* element) const {
    for (int p = 0; p < K; ++p) {
      const T product = w * element[p * N];
      if (element[p * N] != -kInfinity<T> && product != product) return true;
    }
    return false;
  }
};

// The hull of intervals; the first plane is the high ends.
template <typename T, int C>
struct Hull : Selecting<Hull<T, C>, T, C * kLanes<T>> {
  static constexpr int kPlanes = 2, kArrays = 2, N = C * kLanes<T>;
  using Selecting<Hull, T, N>::Selecting, Selecting<Hull, T, N>::call, Selecting<Hull, T, N>::task;

  int numbers() const { return 2; }
  T zero(int p) const { return p == 0 ? -kInfinity<T> : kInfinity<T>; }
  T weight(T w) const { return w; }

  template <int R, int D>
  static SEMIJAX_INLINE void tile(Index depth, const T* weights, const T* panel, T* state) {
    using V = Vector<T>;
    V high[R][D], low[R][D];
    for (int r = 0; r < R; ++r) {
      for (int c = 0; c < D; ++c) {
        high[r][c] = load(state + 2 * r * N + c * kLanes<T>);
        low[r][c] = load(state + (2 * r + 1) * N + c * kLanes<T>);
      }
    }
    for (Index k = 0; k < depth; ++k, panel += 2 * N) {
      for (int r = 0; r < R; ++r) {
        // A negative weight swaps the ends.
        const T number = weights[r * kLongestPanel + k];
        const Index swap = (bits_as<Bits<T>>(number) >> (8 * sizeof(T) - 1)) & N;
        const T *upper = panel + swap, *lower = panel + (swap ^ N);
        const V w = splat(number);
        for (int c = 0; c < D; ++c) {
          high[r][c] = larger<V>(w * load(upper + c * kLanes<T>), high[r][c]);
          low[r][c] = smaller<V>(w * load(lower + c * kLanes<T>), low[r][c]);
        }
      }
    }
    for (int r = 0; r < R; ++r) {
      for (int c = 0; c < D; ++c) {
        store(state + 2 * r * N + c * kLanes<T>, high[r][c]);
        store(state + (2 * r + 1) * N + c * kLanes<T>, low[r][c]);
      }
    }
  }

  bool unknown(T w, const T* element) const {
    const bool empty = element[0] < element[N];
    const T a = w * (empty ? 0 : element[0]), b = w * (empty ? 0 : element[N]);
    return a != a || b != b;
  }
};

// Semirings whose ⊕ adds masses, carried as logarithms, and averages a statistic by them.
//
// With a = |weight| in units of a power of 2 for each row, and e = exp(log mass) in units of the
// largest of each column, a plane of the state is the ordinary sum of a·e, and the other one that
// of a·e·m, or for the entropy of a·e·(m − log(a·e)): three products instead of one.
// A row's unit grows with the weights it meets. Where the sum is so small that terms may have been
// lost below the smallest normal number, `exact` computes it again, one logarithm after the other.
template <typename T, int C, Kind kKind>
struct Averaging {
  static constexpr bool kAlone = kKind == Kind::kCount || kKind == Kind::kMass;  // without means
  static constexpr int kPlanes = kAlone ? 1 : 2, N = C * kLanes<T>;
  static constexpr bool kSurprisal = kKind == Kind::kEntropy;
  static constexpr Index kNoUnit = std::numeric_limits<std::int32_t>::min();
  using V = Vector<T>;

  const Contraction& call;
  const Task& task;
  T* columns;           // the logarithms of their largest masses
  std::int32_t* units;  // of the rows, as powers of 2
  T* state_;

  Averaging(const Contraction& call, const Task& task, T* scratch)
      : call(call), task(task), columns(scratch),
        units(reinterpret_cast<std::int32_t*>(scratch + N)) {}

  void begin(T* state) {
    state_ = state;
    std::memset(state, 0, task.rows * kPlanes * N * sizeof(T));
    for (Index r = 0; r < task.rows; ++r) units[r] = kNoUnit;
    for (int n = 0; n < N; ++n) columns[n] = -kInfinity<T>;
    const auto logs = elements_of<T>(call, task, 0);
    if (logs.row == 1)
      for (Index n = 0; n < task.columns; ++n) columns[n] = largest_of(logs.at(0, n), call.depth);
    else
      for (Index k = 0; k < call.depth; ++k)
        for (Index n = 0; n < task.columns; ++n)
          columns[n] = larger(logs.at(k, 0)[n], columns[n]);
  }

  // The logarithms of the columns' units: 0 where there is no path.
  V unit_of_columns(int c) const {
    const V logs = load(columns + c * kLanes<T>);
    return logs == -kInfinity<T> ? V{} : logs;
  }

  void pack(Index first, Index depth, T* panel) {
    for (int array = 0; array < kPlanes; ++array) {
      const auto from = elements_of<T>(call, task, array);
      copy<T>({from.at(first, 0), from.row, from.column}, {panel + array * N, kPlanes * N, 1},
              depth, task.columns);
    }
    for (Index k = 0; k < depth; ++k) {
      T *masses = panel + k * kPlanes * N, *terms = masses + N;
      for (Index n = task.columns; n < N; ++n) {
        masses[n] = -kInfinity<T>;
        if constexpr (kPlanes > 1) terms[n] = 0;
      }
      for (int c = 0; c < C; ++c) {
        const V logs = load(masses + c * kLanes<T>) - unit_of_columns(c);
        const V mass = exponential<T>(logs);
        store(masses + c * kLanes<T>, mass);
        if constexpr (kPlanes > 1) {
          V mean = load(terms + c * kLanes<T>);
          if constexpr (kSurprisal) mean = mean - (logs == -kInfinity<T> ? V{} : logs);
          store(terms + c * kLanes<T>, mass * mean);
        }
      }
    }
  }

  void lift(Index row, Index rows, Index first, Index depth, T* weights) {
    load_weights(call, task.batch, task.row + row, rows, first, depth, weights);
    for (Index r = 0; r < rows; ++r) {
      T *w = weights + r * kLongestPanel, *surprisals = w + kWeightRows * kLongestPanel;
      if (kKind == Kind::kCount) {
        units[row + r] = 0;
        for (Index k = 0; k < depth; ++k) w[k] = w[k] != w[k] ? w[k] : w[k] != 0;
        continue;
      }
      const Bits<T> largest = largest_bits(w, depth, T{0});
      if (!is_finite<T>(largest)) {
        for (Index k = 0; k < depth; ++k) w[k] = surprisals[k] = kNaN<T>;
        continue;
      }
      if (largest != 0) enlarge(row + r, Index(largest >> kMantissa<T>) - kBias<T>);
      const T scale = units[row + r] == kNoUnit ? 0 : power_of_2<T>(-units[row + r]);
      for (Index k = 0; k < depth; ++k) w[k] = magnitude(w[k]) * scale;
      if constexpr (kSurprisal) {
        for (Index k = 0; k < depth; k += kLanes<T>) {  // the rows are long enough
          const V a = load(w + k);
          store(surprisals + k, a == 0 ? a : -a * logarithm<T>(a));
        }
      }
    }
  }

  // Give a row a unit of at least 2^unit, and its sums with it.
  void enlarge(Index row, Index unit) {
    const Index most = kBias<T> - 1;  // so that the unit's inverse is a normal number
    unit = unit < -most ? -most : unit > most ? most : unit;
    if (unit <= units[row]) return;
    const Index grown = units[row] == kNoUnit ? 0 : unit - units[row];
    units[row] = static_cast<std::int32_t>(unit);
    if (grown == 0) return;
    const T factor = grown > most ? 0 : power_of_2<T>(-grown);
    const T surprisal = kSurprisal ? grown * kLog2<T> : 0;
    T *mass = state_ + row * kPlanes * N, *total = mass + N;
    for (int n = 0; n < N; ++n) {
      if constexpr (kPlanes > 1) total[n] = factor * (total[n] + surprisal * mass[n]);
      mass[n] *= factor;
    }
  }

  template <int R, int D>
  static SEMIJAX_INLINE void tile(Index depth, const T* weights, const T* panel, T* state) {
    constexpr Index surprisals = kWeightRows * kLongestPanel;
    V mass[R][D] = {}, total[R][D] = {};
    for (Index k = 0; k < depth; ++k, panel += kPlanes * N) {
      for (int r = 0; r < R; ++r) {
        const T* w = weights + r * kLongestPanel + k;
        for (int c = 0; c < D; ++c) {
          const V masses = load(panel + c * kLanes<T>);
          mass[r][c] += splat(*w) * masses;
          if constexpr (kPlanes > 1) total[r][c] += splat(*w) * load(panel + N + c * kLanes<T>);
          if constexpr (kSurprisal) total[r][c] += splat(w[surprisals]) * masses;
        }
      }
    }
    for (int r = 0; r < R; ++r) {
      for (int c = 0; c < D; ++c) {
        T* to = state + r * kPlanes * N + c * kLanes<T>;
        store(to, load(to) + mass[r][c]);
        if constexpr (kPlanes > 1) store(to + N, load(to + N) + total[r][c]);
      }
    }
  }

  void after(Index, Index, Index, const T*, const T*) {}

  void finish(T* state) {
    // Less than this may have lost terms that are not small against it.
    constexpr T smallest = std::numeric_limits<T>::min() / std::numeric_limits<T>::epsilon();
    const T trusted = (call.depth + 1) * smallest;
    bool lost[N];
    for (Index r = 0; r < task.rows; ++r) {
      T *masses = state + r * kPlanes * N, *means = masses + N;
      const T unit = units[r] == kNoUnit ? 0 : units[r] * kLog2<T>;
      bool any_lost = false;
      for (int n = 0; n < N; ++n) any_lost |= lost[n] = is_lost(masses[n], trusted);
      for (int c = 0; c < C; ++c) {
        const V mass = load(masses + c * kLanes<T>);
        const V log = logarithm<T>(mass) + (mass - mass);  // NaN stays
        store(masses + c * kLanes<T>, log + (unit + unit_of_columns(c)));
        if constexpr (kPlanes > 1) {
          const V mean = load(means + c * kLanes<T>) / mass;
          store(means + c * kLanes<T>, kSurprisal ? mean + log : mean);
        }
      }
      if (any_lost) recompute(r, lost, masses, means);
    }
    for (int array = 0; array < kPlanes; ++array)
      copy<T>({state + array * N, kPlanes * N, 1}, result_of<T>(call, task, array), task.rows,
              task.columns);
  }

  // A mass alone may be infinite, which its scaled sum reads as NaN; a mean of infinite masses is
  // NaN indeed.
  static bool is_lost(T mass, T trusted) {
    return kKind == Kind::kMass ? !(mass >= trusted) : mass < trusted;
  }

  // What was lost of a row: most often there was nothing, for want of a path.
  void recompute(Index row, const bool* lost, T* logs, T* means) {
    const auto from = elements_of<T>(call, task, 0);
    bool any_path[N] = {};
    T w[kLongestPanel];
    for (Index first = 0; units[row] != kNoUnit && first < call.depth; first += kLongestPanel) {
      const Index left = call.depth - first, count = left < kLongestPanel ? left : kLongestPanel;
      load_weights(call, task.batch, task.row + row, 1, first, count, w);
      for (Index n = 0; n < task.columns; ++n)
        if (lost[n] && columns[n] > -kInfinity<T>)
          for (Index k = 0; k < count && !any_path[n]; ++k)
            any_path[n] = w[k] != 0 && *from.at(first + k, n) > -kInfinity<T>;
    }
    for (Index n = 0; n < task.columns; ++n) {
      if (!lost[n]) continue;
      if (any_path[n] || logs[n] != logs[n]) {
        exact(row, n, logs + n, means + n);
      } else {
        logs[n] = -kInfinity<T>;
        if constexpr (kPlanes > 1) means[n] = 0;
      }
    }
  }

  // One number of the result, by logarithms: twice over the terms, first for the largest.
  void exact(Index row, Index n, T* log_mass, T* mean) {
    double largest = -kInfinity<double>, mass = 0, total = 0;
    for (int adding = 0; adding < 2; ++adding) {
      for (Index k = 0; k < call.depth; ++k) {
        const double log = *elements_of<T>(call, task, 0).at(k, n);
        T weight;
        load_weights(call, task.batch, task.row + row, 1, k, 1, &weight);
        // Nothing, but for 0 · ∞, which is not a number.
        if (weight == 0 && log < kInfinity<double>) continue;
        if (log == -kInfinity<double> && magnitude(weight) < kInfinity<T>) continue;
        const double term = log + (kKind == Kind::kCount ? 0 : ::log(magnitude(double{weight})));
        if (term != term || (adding && largest == kInfinity<double>)) {
          *log_mass = static_cast<T>(term != term ? term : largest);
          return;
        }
        if (!adding) {
          largest = larger(term, largest);
          continue;
        }
        const double share = ::exp(term - largest);
        mass += share;
        if constexpr (kPlanes > 1) {
          const double m = *elements_of<T>(call, task, 1).at(k, n);
          total += share * (kSurprisal ? m - (term - largest) : m);
        }
      }
    }
    *log_mass = static_cast<T>(largest + ::log(mass));
    if constexpr (kPlanes > 1)
      *mean = static_cast<T>(total / mass + (kSurprisal ? ::log(mass) : 0));
  }
};

// How many vectors and rows of the state a tile has, so that half of the registers hold it. A panel
// may be wider: weights are converted once for all of its columns.
constexpr int kTileVectors = kRegisters / 8;
template <class S, int D>
constexpr int tile_rows() {
  constexpr int rows = kRegisters / 2 / (S::kPlanes * D);
  return rows < 1 ? 1 : rows > kWeightRows ? kWeightRows : rows;
}

// Tiles of R rows and then of fewer.
template <class S, typename T, int R, int D>
SEMIJAX_INLINE void tiles(Index rows, Index depth, const T* weights, const T* panel, T* state) {
  Index r = 0;
  for (; r + R <= rows; r += R)
    for (int n = 0; n < S::N; n += D * kLanes<T>)
      S::template tile<R, D>(depth, weights + r * kLongestPanel, panel + n,
                             state + r * S::kPlanes * S::N + n);
  if constexpr (R > 1)
    if (r < rows)
      tiles<S, T, R / 2, D>(rows - r, depth, weights + r * kLongestPanel, panel,
                            state + r * S::kPlanes * S::N);
}

// A task whose columns C vectors hold.
template <class S, typename T, int C>
void contract(const Contraction& call, const Task& task, T* scratch) {
  constexpr int D = C < kTileVectors ? C : kTileVectors, R = tile_rows<S, D>();
  constexpr Index width = S::kPlanes * S::N, fitting = kPanelBytes / (width * Index{sizeof(T)});
  constexpr Index longest = fitting < kShortestPanel  ? kShortestPanel
                            : fitting > kLongestPanel ? kLongestPanel
                                                      : fitting;
  T *panel = scratch, *weights = panel + longest * width,
    *state = weights + 2 * kWeightRows * kLongestPanel;
  S semiring(call, task, state + task.rows * width);
  semiring.begin(state);
  for (Index first = 0; first < call.depth; first += longest) {
    const Index depth = call.depth - first < longest ? call.depth - first : longest;
    semiring.pack(first, depth, panel);
    for (Index row = 0; row < task.rows; row += kWeightRows) {
      const Index rows = task.rows - row < kWeightRows ? task.rows - row : kWeightRows;
      semiring.lift(row, rows, first, depth, weights);
      tiles<S, T, R, D>(rows, depth, weights, panel, state + row * width);
      semiring.after(row, rows, depth, weights, panel);
    }
  }
  semiring.finish(state);
}

// A task with as few columns wasted as possible: `contract(c, part)` takes parts that c vectors hold.
template <typename T, int kMost, class Contract>
void in_parts(Task task, Contract contract) {
  const Index end = task.column + task.columns;
  for (; task.column < end; task.column += task.columns) {
    constexpr Index L = kLanes<T>;
    const Index left = end - task.column, half = kMost / 2 * L;
    if constexpr (kMost > 1) {
      if (left <= kMost * 3 / 4 * L) {  // what half of them leaves, a quarter holds
        task.columns = left < half ? left : half;
        in_parts<T, kMost / 2>(task, contract);
        continue;
      }
    }
    task.columns = left < kMost * L ? left : kMost * L;
    contract(std::integral_constant<int, kMost>(), task);
  }
}
template <typename T>
constexpr int most_vectors() {
  if (sizeof(T) == 8) return kTileVectors;  // to compile less
  return kStrip / kLanes<T> < 8 ? kStrip / kLanes<T> : 8;
}

template <typename T, int K>
void run_largest(const Contraction& call, const Task& task, T* scratch) {
  in_parts<T, K == 1 ? most_vectors<T>() : 1>(task, [&](auto c, const Task& part) {
    contract<Largest<T, c(), K>, T, c()>(call, part, scratch);
  });
}
template <typename T, Kind kKind>
void run_averaging(const Contraction& call, const Task& task, T* scratch) {
  in_parts<T, most_vectors<T>()>(task, [&](auto c, const Task& part) {
    contract<Averaging<T, c(), kKind>, T, c()>(call, part, scratch);
  });
}
template <typename T>
void run_hull(const Contraction& call, const Task& task, T* scratch) {
  in_parts<T, most_vectors<T>()>(task, [&](auto c, const Task& part) {
    contract<Hull<T, c()>, T, c()>(call, part, scratch);
  });
}

template <typename T>
void run_on(const Contraction& call, const Task& task, T* scratch) {
  switch (call.kind) {
    case Kind::kHull:
      return run_hull(call, task, scratch);
    case Kind::kCount:
      return run_averaging<T, Kind::kCount>(call, task, scratch);
    case Kind::kMass:
      return run_averaging<T, Kind::kMass>(call, task, scratch);
    case Kind::kMean:
      return run_averaging<T, Kind::kMean>(call, task, scratch);
    case Kind::kEntropy:
      return run_averaging<T, Kind::kEntropy>(call, task, scratch);
    case Kind::kLargest:
      switch (padded(call.list)) {
        case 1:
          return run_largest<T, 1>(call, task, scratch);
        case 2:
          return run_largest<T, 2>(call, task, scratch);
        case 4:
          return run_largest<T, 4>(call, task, scratch);
        case 8:
          return run_largest<T, 8>(call, task, scratch);
        case 16:
          return run_largest<T, 16>(call, task, scratch);
        default:
          return run_largest<T, kLongestList>(call, task, scratch);
      }
  }
}

}  // namespace

void run(const Contraction& call, const Task& task, void* scratch) {
  call.f64 ? run_on(call, task, static_cast<double*>(scratch))
           : run_on(call, task, static_cast<float*>(scratch));
}

}  // namespace semijax::SEMIJAX_TARGET
