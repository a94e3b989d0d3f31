// What is computed, and how it is cut into tasks: what kernels.cc and xla.cc share.
#pragma once

#include <cstddef>
#include <cstdint>

// The kernels tell apart NaN, ±∞ and the zeros, and their rounding is deliberate. Of these macros
// compilers define one or more with -ffast-math, -Ofast and the options these imply.
#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__) || \
    defined(__NO_SIGNED_ZEROS__) || defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__)
#error "semijax's kernels need NaN, infinities and exact rounding: compile without -ffast-math"
#endif

namespace semijax {

using Index = std::ptrdiff_t;

enum class Number { kF16, kBF16, kF32, kF64 };

// The semiring, and with it what the arrays of elements are.
enum class Kind {
  kLargest,  // one array of sizes; or of lists of them that descend, −∞ after the last
  kHull,     // the high ends of intervals, and the low ones; the empty interval is (−∞, ∞)
  kCount,    // the logarithms of numbers of paths
  kMass,     // the logarithms of masses
  kMean,     // the logarithms of masses, and the means of a statistic over the paths
  kEntropy,  // the logarithms of masses, and the entropies
};

// result[b, m, n] = ⊕ₖ weights[b, m, k] ⊗ elements[b, k, n]. Arrays are dense and row-major; or
// with their columns first, as if they were weights[b, k, m], elements[b, n, k] and result[b, n, m].
struct Contraction {
  Kind kind;
  Index list;  // how many numbers an element of kLargest is, interleaved; 0 where it is one size
  Number weight_type;
  bool f64;  // whether elements and result are float64, or float32
  bool weights_columns_first, columns_first;  // columns_first: of elements and result
  Index batch, rows, depth, columns;
  const void* weights;
  const void* elements[2];
  void* result[2];
};

// Functions in this file are static. An inline function of several object files is linked from one
// of them, whichever it is; that one may have instructions that only the newest processors know.

// How many numbers of one array belong to an element.
static constexpr Index interleaved(const Contraction& call) { return call.list ? call.list : 1; }

// A call is cut into tasks: in each batch, strips of some columns and chunks of some rows.
struct Task {
  Index batch, row, rows, column, columns;
};
constexpr Index kStrip = 64, kMostRows = 128;

// The rows of weights that are converted at once.
constexpr int kWeightRows = 16;

// A panel of elements stays in the first-level cache while rows of weights pass.
constexpr Index kPanelBytes = 24 << 10, kLongestPanel = 256, kShortestPanel = 16;

constexpr Index kLongestList = 32;
static constexpr int padded(Index list) {  // to a power of 2
  int length = 1;
  while (length < list) length *= 2;
  return length;
}

// The memory that a task needs, whatever the instruction set: 8 bytes for each number of a panel,
// of the converted weights, of the state and of what is known of rows and columns.
static constexpr Index scratch_bytes(const Contraction& call) {
  const Index planes = call.kind == Kind::kLargest ? padded(call.list) : 2;
  const Index widest = planes > 2 ? kStrip / 4 : kStrip;
  const Index shortest = kShortestPanel * planes * widest * 8;
  const Index panel = kPanelBytes > shortest ? kPanelBytes : shortest;
  return panel + 8 * (2 * kWeightRows * kLongestPanel + kMostRows * (planes + 1) * widest +
                      kMostRows + kStrip);
}

// What XLA calls is compiled for every processor; a task is run by kernels for the one there is.
using Kernels = void (*)(const Contraction&, const Task&, void* scratch);
namespace baseline {
void run(const Contraction&, const Task&, void*);
}
namespace avx2 {
void run(const Contraction&, const Task&, void*);
}
namespace avx512 {
void run(const Contraction&, const Task&, void*);
}

}  // namespace semijax
