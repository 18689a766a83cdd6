// What a layer computes beside its products of matrices, with gradients, each in one pass over memory: RMSNorm, the gate
// of an MLP, and attention of packed texts from the product of queries, keys and values to the weighted values. For
// numbers of fp32, and of bfloat16 on processors with products of its pairs; numbers in between are fp32.
//
// Attention: a row holds texts, which lie apart: a text sees itself up to each position, and all of the one that it continues, if
// any. Each is computed by itself, so its cost is that of its own length. Scores are computed again in the backward
// pass. Sums have one order, so results are the same to the last bit, however many threads compute other rows.
//
// Letters: T positions, H query heads, K key/value heads, E head size. A word is what a lane multiplies at once: a
// float, or two bfloat16. Inside of a row texts begin at multiples of a register's lanes; what is between them is zero.

#include <cstddef>
#include <cstdint>

#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace {

typedef uint16_t bf16;
typedef int32_t I8 __attribute__((vector_size(32)));

constexpr int ROWS = 8;
constexpr int KEYS = 64;  // whose gradients are computed at once: what is in between stays in the cache

// Of a kind of numbers: their words, the register in which as many of them are floats, and integers of its lanes.
template <class T>
struct Of;
template <>
struct Of<float> {
  using Word = float;
  using V = __m256;
  using I = I8;
  static constexpr int LANES = 8, PACK = 1;  // numbers in a register and in a word
  static constexpr int TALL = 4;             // rows of a product with two registers of columns; there are 16 registers
};

template <class V>
inline V read(const float* p) {
  V v;
  memcpy(&v, p, sizeof v);
  return v;
}
template <class V>
inline void write(float* p, V v) {
  memcpy(p, &v, sizeof v);
}
template <class V>
inline V broadcast(float x) {
  return V{} + x;
}
inline __m256 load(const float* p) { return read<__m256>(p); }
inline void store(float* p, __m256 v) { write(p, v); }
inline __m256 columns(const float* p) {
  __m256 v = _mm256_loadu_ps(p);
  asm("" : "+x"(v));  // once, not with each product
  return v;
}
inline __m256 multiplied(__m256 sum, float row, __m256 column) { return _mm256_fmadd_ps(_mm256_set1_ps(row), column, sum); }
inline __m256 fma(__m256 a, __m256 b, __m256 c) { return _mm256_fmadd_ps(a, b, c); }
// Of two operands, one of which is no number, these give the second.
inline __m256 maximum(__m256 a, __m256 b) { return _mm256_max_ps(a, b); }
inline __m256 minimum(__m256 a, __m256 b) { return _mm256_min_ps(a, b); }
inline __m256 rounded(__m256 x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
// x times 2^n, where both are ordinary numbers
inline __m256 scaled(__m256 x, __m256 n) {
  return x * (__m256)(((I8)_mm256_cvtps_epi32(n) + 127) << 23);
}
inline __m256 inverse(__m256 x) { return 1.f / x; }
inline __m256 swapped(__m256 v) { return _mm256_permute2f128_ps(v, v, 1); }  // halves
inline float lanes_sum(__m256 v) {
  const __m128 four = _mm256_castps256_ps128(v) + _mm256_extractf128_ps(v, 1), two = four + _mm_movehl_ps(four, four);
  return two[0] + two[1];
}
inline float lanes_max(__m256 v) {
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1)), two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return std::max(two[0], two[1]);
}
inline I8 lanes(I8) { return I8{0, 1, 2, 3, 4, 5, 6, 7}; }
inline const float* paired(const std::vector<float>& from, int, int, std::vector<float>&) { return from.data(); }

#if defined(__AVX512BF16__) && defined(__AVX512BW__)
typedef int32_t I16 __attribute__((vector_size(64)));

template <>
struct Of<bf16> {
  using Word = uint32_t;
  using V = __m512;
  using I = I16;
  static constexpr int LANES = 16, PACK = 2, TALL = 8;
};

inline __m512 load(const bf16* p) {
  return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16);
}
inline void store(bf16* p, __m512 v) { _mm256_storeu_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh(v)); }
inline __m512i columns(const uint32_t* p) { return _mm512_loadu_si512(p); }
inline __m512 multiplied(__m512 sum, uint32_t row, __m512i column) {
  return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32((int)row), (__m512bh)column);
}
inline __m512 fma(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }
inline __m512 maximum(__m512 a, __m512 b) { return _mm512_max_ps(a, b); }
inline __m512 minimum(__m512 a, __m512 b) { return _mm512_min_ps(a, b); }
inline __m512 rounded(__m512 x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline __m512 scaled(__m512 x, __m512 n) { return _mm512_scalef_ps(x, n); }
// An approximation of 14 bits and a step of Newton's.
inline __m512 inverse(__m512 x) {
  const __m512 near = _mm512_rcp14_ps(x);
  return near * _mm512_fnmadd_ps(x, near, broadcast<__m512>(2.f));
}
inline __m512 swapped(__m512 v) { return _mm512_shuffle_f32x4(v, v, _MM_SHUFFLE(1, 0, 3, 2)); }
inline float lanes_sum(__m512 v) { return _mm512_reduce_add_ps(v); }
inline float lanes_max(__m512 v) { return _mm512_reduce_max_ps(v); }
inline I16 lanes(I16) { return I16{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}; }
// Words of neighbouring rows: [total][E] to [total / 2][E].
const uint32_t* paired(const std::vector<bf16>& from, int total, int E, std::vector<uint32_t>& to) {
  to.resize((size_t)total * E / 2);
  for (int t = 0; t < total; t += 2)
    for (int e = 0; e < E; e += 16) {
      const bf16* row = &from[(size_t)t * E + e];
      const __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)row));
      const __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(row + E)));
      _mm512_storeu_si512(&to[(size_t)t / 2 * E + e], _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
    }
  return to.data();
}
#endif

// C[R][N registers] (+)= A x B, where A[R][words] and B[words][N registers] hold words of T; those of a row of A are
// `a_step` apart.
template <class T, int R, int N>
inline void tile(const typename Of<T>::Word* a, size_t a_stride, size_t a_step, const typename Of<T>::Word* b, size_t b_stride, int words, float* c, size_t c_stride, bool add) {
  using V = typename Of<T>::V;
  constexpr int LANES = Of<T>::LANES;
  V sums[R][N];
  for (int r = 0; r < R; r++)
    for (int n = 0; n < N; n++) sums[r][n] = add ? read<V>(c + r * c_stride + n * LANES) : V{};
  for (int w = 0; w < words; w++) {
    decltype(columns(b)) column[N];
    for (int n = 0; n < N; n++) column[n] = columns(b + w * b_stride + n * LANES);
    for (int r = 0; r < R; r++)
      for (int n = 0; n < N; n++) sums[r][n] = multiplied(sums[r][n], a[r * a_stride + w * a_step], column[n]);
  }
  for (int r = 0; r < R; r++)
    for (int n = 0; n < N; n++) write(c + r * c_stride + n * LANES, sums[r][n]);
}

// The same for ROWS rows and any number of registers of columns.
template <class T>
inline void product(const typename Of<T>::Word* a, size_t a_stride, const typename Of<T>::Word* b, size_t b_stride, int words, float* c, size_t c_stride, int columns, bool add, size_t a_step = 1) {
  constexpr int LANES = Of<T>::LANES, TALL = Of<T>::TALL;
  int at = 0;
  for (; at + 2 * LANES <= columns; at += 2 * LANES)
    for (int r = 0; r < ROWS; r += TALL)
      tile<T, TALL, 2>(a + r * a_stride, a_stride, a_step, b + at, b_stride, words, c + r * c_stride + at, c_stride, add);
  if (at < columns) tile<T, ROWS, 1>(a, a_stride, a_step, b + at, b_stride, words, c + at, c_stride, add);
}

template <class T>
inline int padded(int count) {
  return (count + Of<T>::LANES - 1) / Of<T>::LANES * Of<T>::LANES;
}

// [rows][columns], rows a multiple of ROWS, to [columns][rows].
template <class Word>
void transpose(const Word* from, int rows, int columns, std::vector<Word>& to) {
  to.resize((size_t)rows * columns);
  for (int r = 0; r < rows; r += ROWS)
    for (int c = 0; c < columns; c++)
      for (int i = 0; i < ROWS; i++) to[(size_t)c * rows + r + i] = from[(size_t)(r + i) * columns + c];
}

// e^x for |x| <= 87: 2^n times 2^f, -0.5 <= f <= 0.5, by its Taylor series up to 3e-7. What is not a number stays so.
template <class V>
inline V exponential(V x) {
  x = maximum(broadcast<V>(-87.f), x) * broadcast<V>(1.44269504f);
  const V n = rounded(x), f = x - n;
  V p = broadcast<V>(1.54035304e-4f);
  for (float next : {1.33335581e-3f, 9.61812911e-3f, 5.55041087e-2f, 2.40226507e-1f, 6.93147181e-1f, 1.f})
    p = fma(p, f, broadcast<V>(next));
  return scaled(p, n);
}

// 1 / (1 + e^-x)
template <class V>
inline V sigmoid(V x) {
  return inverse(exponential(minimum(broadcast<V>(87.f), V{} - x)) + 1.f);
}

// 1 / sqrt(mean of x squared + eps)
template <class T>
inline float scale_of(const T* x, int width, float eps) {
  using V = typename Of<T>::V;
  constexpr int LANES = Of<T>::LANES;
  V sum = V{};
  for (int i = 0; i < width; i += LANES) sum = fma(load(x + i), load(x + i), sum);
  return 1 / std::sqrt(lanes_sum(sum) / width + eps);
}

struct Text {
  int start, length, at, parent;  // place in the row; place among the padded texts; number of the text that it continues
};

template <class T>
struct Call {
  const T* qkv;  // [B, T, H + 2 K, E]
  const float *cos, *sin;  // [context, E], the first half of the sines negated
  const int32_t *places, *documents, *parents;  // [B, T] each; no document continues another: null
  const float *q_weight, *k_weight;  // [E] each; null: no norm
  float eps;
  int32_t batch, length, heads, kv_heads, size;
};

template <class T>
struct Row {
  using V = typename Of<T>::V;
  static constexpr int LANES = Of<T>::LANES;
  const Call<T>& c;
  int b, E, total = 0;  // positions of the padded texts
  std::vector<Text> texts;

  Row(const Call<T>& call, int row) : c(call), b(row), E(call.size) {
    const int32_t* documents = c.documents + (size_t)b * c.length;
    const int32_t* parents = c.parents ? c.parents + (size_t)b * c.length : nullptr;
    for (int t = 0; t < c.length;) {
      int stop = t + 1;
      while (stop < c.length && documents[stop] == documents[t]) stop++;
      int parent = -1;
      if (parents && parents[t] >= 0)
        for (int other = 0; other < (int)texts.size(); other++)
          if (documents[texts[other].start] == parents[t]) parent = other;
      texts.push_back({t, stop - t, total, parent});
      total += padded<T>(stop - t);
      t = stop;
    }
  }
  size_t at(int t, int head) const { return (((size_t)b * c.length + t) * (c.heads + 2 * c.kv_heads) + head) * E; }
  template <class Work>
  void each(Work&& work) const {  // (position in the row, among the padded texts)
    for (const Text& text : texts)
      for (int i = 0; i < text.length; i++) work(text.start + i, text.at + i);
  }

  // Normalised and rotated heads, [total][E].
  void rotated(int head, const float* weight, std::vector<T>& to) const {
    to.assign((size_t)total * E, 0);
    each([&](int t, int at_) {
      const T* from = c.qkv + at(t, head);
      const size_t place = (size_t)c.places[(size_t)b * c.length + t] * E;
      const V scale = broadcast<V>(weight ? scale_of(from, E, c.eps) : 1.f);
      auto value = [&](int e) {
        const V x = load(from + e) * scale;
        return weight ? x * read<V>(weight + e) : x;
      };
      auto turn = [&](int e, V own, V other) {
        const V sin = read<V>(c.sin + place + e), cos = read<V>(c.cos + place + e);
        store(&to[(size_t)at_ * E + e], fma(own, cos, other * sin));
      };
      if (E == LANES) {
        const V x = value(0);
        turn(0, x, swapped(x));
        return;
      }
      for (int e = 0; e < E / 2; e += LANES) {
        const V x = value(e), y = value(e + E / 2);
        turn(e, x, y);
        turn(e + E / 2, y, x);
      }
    });
  }

  // The gradient of a head as it was given, from that of what `rotated` made of it; the weight's is added to `d_weight`.
  void rotated_back(int head, const float* weight, const std::vector<float>& d, T* d_qkv, float* d_weight) const {
    std::vector<float> turned(E);
    each([&](int t, int at_) {
      const float* from = &d[(size_t)at_ * E];
      const size_t place = (size_t)c.places[(size_t)b * c.length + t] * E;
      for (int e = 0; e < E; e += LANES) {
        const int other = E == LANES ? 0 : e < E / 2 ? e + E / 2 : e - E / 2;
        const V there = read<V>(from + other) * read<V>(c.sin + place + other), across = E == LANES ? swapped(there) : there;
        write(&turned[e], fma(read<V>(from + e), read<V>(c.cos + place + e), across));
      }
      const T* x = c.qkv + at(t, head);
      T* to = d_qkv + at(t, head);
      if (!weight) {
        for (int e = 0; e < E; e += LANES) store(to + e, read<V>(&turned[e]));
        return;
      }
      const V scale = broadcast<V>(scale_of(x, E, c.eps));
      V along = V{};
      for (int e = 0; e < E; e += LANES) {
        const V n = load(x + e) * scale, d_y = read<V>(&turned[e]);
        write(d_weight + e, fma(d_y, n, read<V>(d_weight + e)));
        const V d_n = d_y * read<V>(weight + e);
        write(&turned[e], d_n);
        along = fma(d_n, n, along);
      }
      const V mean = broadcast<V>(lanes_sum(along) / E);
      for (int e = 0; e < E; e += LANES) {
        const V n = load(x + e) * scale;
        store(to + e, scale * fma(-n, mean, read<V>(&turned[e])));
      }
    });
  }

  // [total][E] of heads that lie `stride` apart in a tensor.
  void gathered(const T* from, size_t stride, std::vector<T>& to) const {
    to.assign((size_t)total * E, 0);
    each([&](int t, int at_) { std::copy_n(from + t * stride, E, &to[(size_t)at_ * E]); });
  }
};

// Rows of `width` numbers divided by their length; `scales` [rows]: what each was multiplied with.
template <class T>
void normalize(const T* x, int64_t rows, int32_t width, float eps, T* y, float* scales) {
  constexpr int LANES = Of<T>::LANES;
  for (; rows--; x += width, y += width) {
    const float scale = *scales++ = scale_of(x, width, eps);
    for (int i = 0; i < width; i += LANES) store(y + i, load(x + i) * scale);
  }
}

// (d_y - y times the mean of d_y * y) * scale
template <class T>
void normalize_backward(const T* y, const float* scales, const T* d_y, int64_t rows, int32_t width, T* d_x) {
  using V = typename Of<T>::V;
  constexpr int LANES = Of<T>::LANES;
  for (; rows--; y += width, d_y += width, d_x += width) {
    V along = V{};
    for (int i = 0; i < width; i += LANES) along = fma(load(y + i), load(d_y + i), along);
    const V mean = broadcast<V>(lanes_sum(along) / width), scale = broadcast<V>(*scales++);
    for (int i = 0; i < width; i += LANES)
      store(d_x + i, fma(-load(y + i), mean, load(d_y + i)) * scale);
  }
}

// silu(gate) * up; `gate_up`: [rows, 2 width].
template <class T>
void gate(const T* gate_up, int64_t rows, int32_t width, T* y) {
  using V = typename Of<T>::V;
  constexpr int LANES = Of<T>::LANES;
  for (; rows--; gate_up += 2 * width, y += width)
    for (int i = 0; i < width; i += LANES) {
      const V gate = load(gate_up + i), opened = gate * sigmoid(gate);
      store(y + i, opened * load(gate_up + width + i));
    }
}

template <class T>
void gate_backward(const T* gate_up, const T* d_y, int64_t rows, int32_t width, T* d_gate_up) {
  using V = typename Of<T>::V;
  constexpr int LANES = Of<T>::LANES;
  const V one = broadcast<V>(1.f);
  for (; rows--; gate_up += 2 * width, d_gate_up += 2 * width, d_y += width)
    for (int i = 0; i < width; i += LANES) {
      const V gate = load(gate_up + i), share = sigmoid(gate), d = load(d_y + i);
      const V slope = share * fma(gate, one - share, one);
      store(d_gate_up + i, d * load(gate_up + width + i) * slope);
      store(d_gate_up + width + i, d * (gate * share));
    }
}

// Of each row of logits the log-probability of its target, and the logarithm of the sum of their exponentials.
template <class T>
void log_probabilities(const T* logits, int64_t rows, int32_t vocab, const int64_t* targets, float* log_p, float* logsums) {
  using V = typename Of<T>::V;
  constexpr int LANES = Of<T>::LANES;
  for (int64_t r = 0; r < rows; r++, logits += vocab) {
    V top = broadcast<V>(-INFINITY), all = V{};
    for (int i = 0; i < vocab; i += LANES) top = maximum(top, load(logits + i));
    const float most = lanes_max(top);
    for (int i = 0; i < vocab; i += LANES)
      all = all + exponential(load(logits + i) - most);
    logsums[r] = most + std::log(lanes_sum(all));
    float lanes[LANES];
    const int64_t target = targets[r], first = target / LANES * LANES;
    write(lanes, load(logits + first));
    log_p[r] = lanes[target - first] - logsums[r];
  }
}

// Logits become the gradient of a loss by them; `d_log_p` [rows]: its gradient by the log-probability of each target.
template <class T>
void logit_gradients(T* logits, int64_t rows, int32_t vocab, const int64_t* targets, const float* logsums, const float* d_log_p) {
  using V = typename Of<T>::V;
  using I = typename Of<T>::I;
  constexpr int LANES = Of<T>::LANES;
  for (int64_t r = 0; r < rows; r++, logits += vocab) {
        for (int i = 0; i < vocab; i += LANES) {
      V p = exponential(load(logits + i) - logsums[r]);
      if (targets[r] / LANES * LANES == i) p = lanes(I{}) == (int)(targets[r] % LANES) ? p - 1.f : p;
      store(logits + i, p * -d_log_p[r]);
    }
  }
}

// `y`: [B, T, H, E]; `logsums`: [B, H, T], of the exponentials of each query's scores.
template <class T>
void attention(const Call<T>* call, T* y, float* logsums) {
  using V = typename Of<T>::V;
  using I = typename Of<T>::I;
  using Word = typename Of<T>::Word;
  constexpr int LANES = Of<T>::LANES, PACK = Of<T>::PACK;
  const Call<T>& c = *call;
  const int E = c.size, each = c.heads / c.kv_heads;
  const float factor = 1 / std::sqrt((float)E);
  std::vector<T> keys, values, queries;
  std::vector<Word> keys_across, paired_values;
  std::vector<float> scores, sums((size_t)ROWS * E);
  std::vector<T> p;
  const Word* value_pairs = nullptr;
  for (int b = 0; b < c.batch; b++) {
    const Row<T> row(c, b);
    const size_t stride = (size_t)(c.heads + 2 * c.kv_heads) * E;
    for (int h = 0; h < c.heads; h++) {
      if (h % each == 0) {
        const int g = h / each;
        row.rotated(c.heads + g, c.k_weight, keys);
        transpose((const Word*)keys.data(), row.total, E / PACK, keys_across);
        row.gathered(c.qkv + row.at(0, c.heads + c.kv_heads + g), stride, values);
        value_pairs = paired(values, row.total, E, paired_values);
      }
      row.rotated(h, c.q_weight, queries);
      for (const Text& text : row.texts) {
        const Text* parent = text.parent < 0 ? nullptr : &row.texts[text.parent];
        const int before = parent ? padded<T>(parent->length) : 0;
        const size_t most = before + padded<T>(text.length);
        scores.resize(ROWS * most), p.resize(ROWS * most);
        for (int i = 0; i < text.length; i += ROWS) {
          const int own = padded<T>(i + ROWS), count = before + own;
          const Word* q = (const Word*)&queries[(size_t)(text.at + i) * E];
          if (parent) product<T>(q, E / PACK, &keys_across[parent->at], row.total, E / PACK, scores.data(), most, before, false);
          product<T>(q, E / PACK, &keys_across[text.at], row.total, E / PACK, &scores[before], most, own, false);
          float inverses[ROWS];
          for (int r = 0; r < ROWS; r++) {
            float* s = &scores[r * most];
            V top = broadcast<V>(-INFINITY);
            for (int k = 0; k < count; k += LANES) {
              const int last = k < before ? parent->length - 1 - k : i + r - (k - before);
              const V v = lanes(I{}) <= last ? read<V>(s + k) : broadcast<V>(-INFINITY);
              write(s + k, v);
              top = maximum(top, v);
            }
            const float highest = lanes_max(top);
            const V shift = broadcast<V>(-highest * factor);
            V all = V{};
            for (int k = 0; k < count; k += LANES) {
              const V v = read<V>(s + k);
              const V e = v != -INFINITY ? exponential(fma(v, broadcast<V>(factor), shift)) : V{};
              all = all + e;
              store(&p[r * most + k], e);
            }
            const float sum = lanes_sum(all);
            inverses[r] = 1 / sum;
            if (i + r < text.length)
              logsums[((size_t)b * c.heads + h) * c.length + text.start + i + r] = highest * factor + std::log(sum);
          }
          const Word* words = (const Word*)p.data();
          if (parent) product<T>(words, most / PACK, &value_pairs[(size_t)parent->at / PACK * E], E, before / PACK, sums.data(), E, E, false);
          product<T>(words + before / PACK, most / PACK, &value_pairs[(size_t)text.at / PACK * E], E, own / PACK, sums.data(), E, E, parent != nullptr);
          for (int r = 0; r < ROWS && i + r < text.length; r++)
            for (int e = 0; e < E; e += LANES)
              store(y + (((size_t)b * c.length + text.start + i + r) * c.heads + h) * E + e,
                    read<V>(&sums[(size_t)r * E + e]) * inverses[r]);
        }
      }
    }
  }
}

// `d_qkv`: as `qkv`; `d_q_weight`, `d_k_weight`: [E] each, with a norm.
template <class T>
void attention_backward(const Call<T>* call, const T* y, const float* logsums, const T* d_y,
                                  T* d_qkv, float* d_q_weight, float* d_k_weight) {
  using V = typename Of<T>::V;
  using I = typename Of<T>::I;
  using Word = typename Of<T>::Word;
  constexpr int LANES = Of<T>::LANES, PACK = Of<T>::PACK;
  const Call<T>& c = *call;
  const int E = c.size, each = c.heads / c.kv_heads;
  const float factor = 1 / std::sqrt((float)E);
  std::vector<T> keys, values, queries, d_out, p, d_s;
  std::vector<Word> queries_across, d_out_across, paired_queries, paired_d_out, paired_keys, paired_d_s;
  const Word* key_pairs = nullptr;
  std::vector<float> d_keys, d_values, d_queries, scores, d_p, along, logsum;
  for (int b = 0; b < c.batch; b++) {
    const Row<T> row(c, b);
    const int total = row.total;
    const size_t stride = (size_t)(c.heads + 2 * c.kv_heads) * E;
    for (int h = 0; h < c.heads; h++) {
      const int g = h / each;
      if (h % each == 0) {
        row.rotated(c.heads + g, c.k_weight, keys);
        row.gathered(c.qkv + row.at(0, c.heads + c.kv_heads + g), stride, values);
        key_pairs = paired(keys, total, E, paired_keys);
        d_keys.assign((size_t)total * E, 0), d_values.assign((size_t)total * E, 0);
      }
      row.rotated(h, c.q_weight, queries);
      const T* given = d_y + ((size_t)b * c.length * c.heads + h) * E;
      row.gathered(given, (size_t)c.heads * E, d_out);
      transpose((const Word*)queries.data(), total, E / PACK, queries_across);
      transpose((const Word*)d_out.data(), total, E / PACK, d_out_across);
      const Word *query_pairs = paired(queries, total, E, paired_queries), *d_out_pairs = paired(d_out, total, E, paired_d_out);
      along.assign(total, 0), logsum.assign(total, INFINITY);  // so that there is nothing between texts
      row.each([&](int t, int at) {
        const T *one = given + (size_t)t * c.heads * E, *other = y + (((size_t)b * c.length + t) * c.heads + h) * E;
        V sum = V{};
        for (int e = 0; e < E; e += LANES) sum = fma(load(one + e), load(other + e), sum);
        along[at] = lanes_sum(sum);
        logsum[at] = logsums[((size_t)b * c.heads + h) * c.length + t];
      });
      d_queries.assign((size_t)total * E, 0);
      for (const Text& text : row.texts) {
        const int width = padded<T>(text.length);  // of the queries
        p.resize((size_t)KEYS * width), d_s.resize((size_t)KEYS * width);
        scores.resize((size_t)ROWS * width), d_p.resize((size_t)ROWS * width);
        auto learn = [&](const Text& seen, bool own) {
          for (int block = 0; block < padded<T>(seen.length); block += KEYS) {
            const int stop = std::min(block + KEYS, padded<T>(seen.length));
            for (int j = block; j < stop; j += ROWS) {
              const int first = own ? j / LANES * LANES : 0, count = width - first;  // earlier queries see none of these
              const size_t key = (size_t)(seen.at + j) * E;
              product<T>((const Word*)&keys[key], E / PACK, &queries_across[text.at + first], total, E / PACK, &scores[first], width, count, false);
              product<T>((const Word*)&values[key], E / PACK, &d_out_across[text.at + first], total, E / PACK, &d_p[first], width, count, false);
              for (int r = 0; r < ROWS; r++)
                for (int i = first; i < width; i += LANES) {
                  const int k = j + r;
                  // queries from k on, or all, where there is such a key
                  const int from = k >= seen.length ? LANES : own ? k - i : 0;
                  const size_t place = (size_t)r * width + i, to = (size_t)(k - block) * width + i;
                  const V score = fma(read<V>(&scores[place]), broadcast<V>(factor), -read<V>(&logsum[text.at + i]));
                  const V share = lanes(I{}) >= from ? exponential(score) : V{};
                  store(&p[to], share);
                  store(&d_s[to], share * (read<V>(&d_p[place]) - read<V>(&along[text.at + i])));
                }
              const size_t words = ((size_t)(j - block) * width + first) / PACK, pairs = (size_t)(text.at + first) / PACK * E;
              product<T>((const Word*)p.data() + words, width / PACK, &d_out_pairs[pairs], E, count / PACK, &d_values[key], E, E, true);
              product<T>((const Word*)d_s.data() + words, width / PACK, &query_pairs[pairs], E, count / PACK, &d_keys[key], E, E, true);
            }
            const Word* d_s_pairs = paired(d_s, stop - block, width, paired_d_s);
            for (int i = own ? block : 0; i < width; i += ROWS) {
              const int count = own ? std::min(stop, padded<T>(i + ROWS)) - block : stop - block;  // later keys are not seen
              product<T>(&d_s_pairs[i], 1, &key_pairs[(size_t)(seen.at + block) / PACK * E], E, count / PACK,
                         &d_queries[(size_t)(text.at + i) * E], E, E, true, width);
            }
          }
        };
        if (text.parent >= 0) learn(row.texts[text.parent], false);
        learn(text, true);
      }
      for (float& d : d_queries) d *= factor;
      row.rotated_back(h, c.q_weight, d_queries, d_qkv, d_q_weight);
      if (h % each == each - 1) {
        for (float& d : d_keys) d *= factor;
        row.rotated_back(c.heads + g, c.k_weight, d_keys, d_qkv, d_k_weight);
        row.each([&](int t, int at) {
          for (int e = 0; e < E; e += LANES)
            store(d_qkv + row.at(t, c.heads + c.kv_heads + g) + e, read<V>(&d_values[(size_t)at * E + e]));
        });
      }
    }
  }
}

}  // namespace

// What Python finds by name.
#define EXPORT(T)                                                   \
  extern "C" {                                                      \
  auto* crawltalk_##T##_normalize = normalize<T>;                   \
  auto* crawltalk_##T##_normalize_backward = normalize_backward<T>; \
  auto* crawltalk_##T##_gate = gate<T>;                             \
  auto* crawltalk_##T##_gate_backward = gate_backward<T>;           \
  auto* crawltalk_##T##_log_probabilities = log_probabilities<T>;   \
  auto* crawltalk_##T##_logit_gradients = logit_gradients<T>;       \
  auto* crawltalk_##T##_attention = attention<T>;                   \
  auto* crawltalk_##T##_attention_backward = attention_backward<T>; \
  }

EXPORT(float)
#if defined(__AVX512BF16__) && defined(__AVX512BW__)
EXPORT(bf16)
#endif

#endif
