// What a layer computes beside its products of matrices, with gradients, each in one pass over memory: RMSNorm, the gate
// of an MLP, and attention of packed texts from the product of queries, keys and values to the weighted values. For
// processors with products of bfloat16 pairs; numbers in between are fp32.
//
// Attention: a row holds texts, which lie apart: a text sees itself up to each position, and all of the one that it continues, if
// any. Each is computed by itself, so its cost is that of its own length. Scores are computed again in the backward
// pass. Sums have one order, so results are the same to the last bit, however many threads compute other rows.
//
// Letters: T positions, H query heads, K key/value heads, E head size. A word is two bfloat16, which are multiplied
// together. Inside of a row texts begin at multiples of 16; what is between them is zero.

#include <cstddef>
#include <cstdint>

#if defined(__AVX512BF16__) && defined(__AVX512BW__)
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace {

constexpr int ROWS = 8, LANES = 16;
constexpr int KEYS = 64;  // whose gradients are computed at once: what is in between stays in the cache

// C[ROWS][N x 16] (+)= A x B, where A[ROWS][words] and B[words][N x 16] hold words.
template <int N>
inline void tile(const uint32_t* a, size_t a_stride, const uint32_t* b, size_t b_stride, int words, float* c, size_t c_stride, bool add) {
  __m512 sums[ROWS][N];
  for (int r = 0; r < ROWS; r++)
    for (int n = 0; n < N; n++) sums[r][n] = add ? _mm512_loadu_ps(c + r * c_stride + n * LANES) : _mm512_setzero_ps();
  for (int w = 0; w < words; w++) {
    __m512bh columns[N];
    for (int n = 0; n < N; n++) columns[n] = (__m512bh)_mm512_loadu_si512(b + w * b_stride + n * LANES);
    for (int r = 0; r < ROWS; r++) {
      const __m512bh row = (__m512bh)_mm512_set1_epi32((int)a[r * a_stride + w]);
      for (int n = 0; n < N; n++) sums[r][n] = _mm512_dpbf16_ps(sums[r][n], row, columns[n]);
    }
  }
  for (int r = 0; r < ROWS; r++)
    for (int n = 0; n < N; n++) _mm512_storeu_ps(c + r * c_stride + n * LANES, sums[r][n]);
}

// The same for any multiple of 16 columns.
inline void product(const uint32_t* a, size_t a_stride, const uint32_t* b, size_t b_stride, int words, float* c, size_t c_stride, int columns, bool add) {
  int at = 0;
  for (; at + 2 * LANES <= columns; at += 2 * LANES) tile<2>(a, a_stride, b + at, b_stride, words, c + at, c_stride, add);
  if (at < columns) tile<1>(a, a_stride, b + at, b_stride, words, c + at, c_stride, add);
}

inline __m512 load(const uint16_t* p) {
  return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16);
}
inline __m256i narrow(__m512 v) { return (__m256i)_mm512_cvtneps_pbh(v); }
inline void store(uint16_t* p, __m512 v) { _mm256_storeu_si256((__m256i*)p, narrow(v)); }
inline int padded(int count) { return (count + LANES - 1) / LANES * LANES; }
inline __m512i lanes() { return _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0); }

// e^x for |x| <= 87: 2^n times 2^f, -0.5 <= f <= 0.5, by its Taylor series up to 3e-7. What is not a number stays so: of
// two operands, one of which is none, max and min give the second.
inline __m512 exponential(__m512 x) {
  x = _mm512_mul_ps(_mm512_max_ps(_mm512_set1_ps(-87.f), x), _mm512_set1_ps(1.44269504f));
  const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), f = _mm512_sub_ps(x, n);
  __m512 p = _mm512_set1_ps(1.54035304e-4f);
  for (float next : {1.33335581e-3f, 9.61812911e-3f, 5.55041087e-2f, 2.40226507e-1f, 6.93147181e-1f, 1.f})
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(next));
  return _mm512_scalef_ps(p, n);
}

// 1 / (1 + e^-x), by an approximation of 14 bits and a step of Newton's.
inline __m512 sigmoid(__m512 x) {
  const __m512 power = exponential(_mm512_min_ps(_mm512_set1_ps(87.f), _mm512_sub_ps(_mm512_setzero_ps(), x)));
  const __m512 sum = _mm512_add_ps(power, _mm512_set1_ps(1.f)), inverse = _mm512_rcp14_ps(sum);
  return _mm512_mul_ps(inverse, _mm512_fnmadd_ps(sum, inverse, _mm512_set1_ps(2.f)));
}

// 1 / sqrt(mean of x squared + eps)
inline float scale_of(const uint16_t* x, int width, float eps) {
  __m512 sum = _mm512_setzero_ps();
  for (int i = 0; i < width; i += LANES) sum = _mm512_fmadd_ps(load(x + i), load(x + i), sum);
  return 1 / std::sqrt(_mm512_reduce_add_ps(sum) / width + eps);
}

struct Text {
  int start, length, at, parent;  // place in the row; place among the padded texts; number of the text that it continues
};

}  // namespace

extern "C" {

struct Call {
  const uint16_t* qkv;  // [B, T, H + 2 K, E]
  const float *cos, *sin;  // [context, E], the first half of the sines negated
  const int32_t *places, *documents, *parents;  // [B, T] each; no document continues another: null
  const float *q_weight, *k_weight;  // [E] each; null: no norm
  float eps;
  int32_t batch, length, heads, kv_heads, size;
};

}  // extern "C"

namespace {

struct Row {
  const Call& c;
  int b, E, total = 0;  // positions of the padded texts
  std::vector<Text> texts;

  Row(const Call& call, int row) : c(call), b(row), E(call.size) {
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
      total += padded(stop - t);
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
  void rotated(int head, const float* weight, std::vector<uint16_t>& to) const {
    to.assign((size_t)total * E, 0);
    each([&](int t, int at_) {
      const uint16_t* from = c.qkv + at(t, head);
      const size_t place = (size_t)c.places[(size_t)b * c.length + t] * E;
      const __m512 scale = _mm512_set1_ps(weight ? scale_of(from, E, c.eps) : 1.f);
      auto value = [&](int e) {
        const __m512 x = _mm512_mul_ps(load(from + e), scale);
        return weight ? _mm512_mul_ps(x, _mm512_loadu_ps(weight + e)) : x;
      };
      for (int e = 0; e < E / 2; e += LANES) {
        const __m512 x = value(e), y = value(e + E / 2);
        auto turn = [&](int e, __m512 own, __m512 other) {
          const __m512 sin = _mm512_loadu_ps(c.sin + place + e), cos = _mm512_loadu_ps(c.cos + place + e);
          store(&to[(size_t)at_ * E + e], _mm512_fmadd_ps(own, cos, _mm512_mul_ps(other, sin)));
        };
        turn(e, x, y);
        turn(e + E / 2, y, x);
      }
    });
  }

  // The gradient of a head as it was given, from that of what `rotated` made of it; the weight's is added to `d_weight`.
  void rotated_back(int head, const float* weight, const std::vector<float>& d, uint16_t* d_qkv, float* d_weight) const {
    std::vector<float> turned(E);
    each([&](int t, int at_) {
      const float* from = &d[(size_t)at_ * E];
      const size_t place = (size_t)c.places[(size_t)b * c.length + t] * E;
      for (int e = 0; e < E; e += LANES) {
        const int other = e < E / 2 ? e + E / 2 : e - E / 2;
        const __m512 across = _mm512_mul_ps(_mm512_loadu_ps(from + other), _mm512_loadu_ps(c.sin + place + other));
        _mm512_storeu_ps(&turned[e], _mm512_fmadd_ps(_mm512_loadu_ps(from + e), _mm512_loadu_ps(c.cos + place + e), across));
      }
      const uint16_t* x = c.qkv + at(t, head);
      uint16_t* to = d_qkv + at(t, head);
      if (!weight) {
        for (int e = 0; e < E; e += LANES) store(to + e, _mm512_loadu_ps(&turned[e]));
        return;
      }
      const __m512 scale = _mm512_set1_ps(scale_of(x, E, c.eps));
      __m512 along = _mm512_setzero_ps();
      for (int e = 0; e < E; e += LANES) {
        const __m512 n = _mm512_mul_ps(load(x + e), scale), d_y = _mm512_loadu_ps(&turned[e]);
        _mm512_storeu_ps(d_weight + e, _mm512_fmadd_ps(d_y, n, _mm512_loadu_ps(d_weight + e)));
        const __m512 d_n = _mm512_mul_ps(d_y, _mm512_loadu_ps(weight + e));
        _mm512_storeu_ps(&turned[e], d_n);
        along = _mm512_fmadd_ps(d_n, n, along);
      }
      const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(along) / E);
      for (int e = 0; e < E; e += LANES) {
        const __m512 n = _mm512_mul_ps(load(x + e), scale);
        store(to + e, _mm512_mul_ps(scale, _mm512_fnmadd_ps(n, mean, _mm512_loadu_ps(&turned[e]))));
      }
    });
  }

  // [total][E] of heads that lie `stride` apart in a tensor.
  void gathered(const uint16_t* from, size_t stride, std::vector<uint16_t>& to) const {
    to.assign((size_t)total * E, 0);
    each([&](int t, int at_) { std::copy_n(from + t * stride, E, &to[(size_t)at_ * E]); });
  }
};

// Words of neighbouring columns, a row for each word: [total][E] to [E / 2][total].
void transpose_words(const std::vector<uint16_t>& from, int total, int E, std::vector<uint32_t>& to) {
  to.resize((size_t)total * E / 2);
  const uint32_t* words = (const uint32_t*)from.data();
  const __m512i index = _mm512_mullo_epi32(lanes(), _mm512_set1_epi32(E / 2));
  for (int t = 0; t < total; t += LANES)
    for (int w = 0; w < E / 2; w++)
      _mm512_storeu_si512(&to[(size_t)w * total + t], _mm512_i32gather_epi32(index, words + (size_t)t * E / 2 + w, 4));
}

// Words of neighbouring rows: [total][E] to [total / 2][E].
void pair_rows(const std::vector<uint16_t>& from, int total, int E, std::vector<uint32_t>& to) {
  to.resize((size_t)total * E / 2);
  for (int t = 0; t < total; t += 2)
    for (int e = 0; e < E; e += LANES) {
      const uint16_t* row = &from[(size_t)t * E + e];
      const __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)row));
      const __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(row + E)));
      _mm512_storeu_si512(&to[(size_t)t / 2 * E + e], _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
    }
}

}  // namespace

extern "C" {

int crawltalk_supported() { return 1; }

// Rows of `width` numbers divided by their length; `scales` [rows]: what each was multiplied with.
void crawltalk_normalize(const uint16_t* x, int64_t rows, int32_t width, float eps, uint16_t* y, float* scales) {
  for (; rows--; x += width, y += width) {
    const float scale = *scales++ = scale_of(x, width, eps);
    for (int i = 0; i < width; i += LANES) store(y + i, _mm512_mul_ps(load(x + i), _mm512_set1_ps(scale)));
  }
}

// (d_y - y times the mean of d_y * y) * scale
void crawltalk_normalize_backward(const uint16_t* y, const float* scales, const uint16_t* d_y, int64_t rows, int32_t width, uint16_t* d_x) {
  for (; rows--; y += width, d_y += width, d_x += width) {
    __m512 along = _mm512_setzero_ps();
    for (int i = 0; i < width; i += LANES) along = _mm512_fmadd_ps(load(y + i), load(d_y + i), along);
    const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(along) / width), scale = _mm512_set1_ps(*scales++);
    for (int i = 0; i < width; i += LANES)
      store(d_x + i, _mm512_mul_ps(_mm512_fnmadd_ps(load(y + i), mean, load(d_y + i)), scale));
  }
}

// silu(gate) * up; `gate_up`: [rows, 2 width].
void crawltalk_gate(const uint16_t* gate_up, int64_t rows, int32_t width, uint16_t* y) {
  for (; rows--; gate_up += 2 * width, y += width)
    for (int i = 0; i < width; i += LANES) {
      const __m512 gate = load(gate_up + i), opened = _mm512_mul_ps(gate, sigmoid(gate));
      store(y + i, _mm512_mul_ps(opened, load(gate_up + width + i)));
    }
}

void crawltalk_gate_backward(const uint16_t* gate_up, const uint16_t* d_y, int64_t rows, int32_t width, uint16_t* d_gate_up) {
  const __m512 one = _mm512_set1_ps(1.f);
  for (; rows--; gate_up += 2 * width, d_gate_up += 2 * width, d_y += width)
    for (int i = 0; i < width; i += LANES) {
      const __m512 gate = load(gate_up + i), share = sigmoid(gate), d = load(d_y + i);
      const __m512 slope = _mm512_mul_ps(share, _mm512_fmadd_ps(gate, _mm512_sub_ps(one, share), one));
      store(d_gate_up + i, _mm512_mul_ps(_mm512_mul_ps(d, load(gate_up + width + i)), slope));
      store(d_gate_up + width + i, _mm512_mul_ps(d, _mm512_mul_ps(gate, share)));
    }
}

// Of each row of logits the log-probability of its target, and the logarithm of the sum of their exponentials.
void crawltalk_log_probabilities(const uint16_t* logits, int64_t rows, int32_t vocab, const int64_t* targets, float* log_p, float* logsums) {
  for (int64_t r = 0; r < rows; r++, logits += vocab) {
    __m512 top = _mm512_set1_ps(-INFINITY), all = _mm512_setzero_ps();
    for (int i = 0; i < vocab; i += LANES) top = _mm512_max_ps(top, load(logits + i));
    const float most = _mm512_reduce_max_ps(top);
    for (int i = 0; i < vocab; i += LANES)
      all = _mm512_add_ps(all, exponential(_mm512_sub_ps(load(logits + i), _mm512_set1_ps(most))));
    logsums[r] = most + std::log(_mm512_reduce_add_ps(all));
    float lanes[LANES];
    const int64_t target = targets[r], first = target / LANES * LANES;
    _mm512_storeu_ps(lanes, load(logits + first));
    log_p[r] = lanes[target - first] - logsums[r];
  }
}

// Logits become the gradient of a loss by them; `d_log_p` [rows]: its gradient by the log-probability of each target.
void crawltalk_logit_gradients(uint16_t* logits, int64_t rows, int32_t vocab, const int64_t* targets, const float* logsums, const float* d_log_p) {
  for (int64_t r = 0; r < rows; r++, logits += vocab) {
    const __m512 logsum = _mm512_set1_ps(logsums[r]), factor = _mm512_set1_ps(-d_log_p[r]);
    for (int i = 0; i < vocab; i += LANES) {
      __m512 p = exponential(_mm512_sub_ps(load(logits + i), logsum));
      if (targets[r] / LANES * LANES == i)
        p = _mm512_mask_sub_ps(p, __mmask16(1 << targets[r] % LANES), p, _mm512_set1_ps(1.f));
      store(logits + i, _mm512_mul_ps(p, factor));
    }
  }
}

// `y`: [B, T, H, E]; `logsums`: [B, H, T], of the exponentials of each query's scores.
void crawltalk_attention(const Call* call, uint16_t* y, float* logsums) {
  const Call& c = *call;
  const int E = c.size, each = c.heads / c.kv_heads;
  const float factor = 1 / std::sqrt((float)E);
  std::vector<uint16_t> keys, values, queries;
  std::vector<uint32_t> keys_across, value_pairs;
  std::vector<float> scores, sums((size_t)ROWS * E);
  std::vector<uint16_t> p;
  for (int b = 0; b < c.batch; b++) {
    const Row row(c, b);
    const size_t stride = (size_t)(c.heads + 2 * c.kv_heads) * E;
    for (int h = 0; h < c.heads; h++) {
      if (h % each == 0) {
        const int g = h / each;
        row.rotated(c.heads + g, c.k_weight, keys);
        transpose_words(keys, row.total, E, keys_across);
        row.gathered(c.qkv + row.at(0, c.heads + c.kv_heads + g), stride, values);
        pair_rows(values, row.total, E, value_pairs);
      }
      row.rotated(h, c.q_weight, queries);
      for (const Text& text : row.texts) {
        const Text* parent = text.parent < 0 ? nullptr : &row.texts[text.parent];
        const int before = parent ? padded(parent->length) : 0;
        const size_t most = before + padded(text.length);
        scores.resize(ROWS * most), p.resize(ROWS * most);
        for (int i = 0; i < text.length; i += ROWS) {
          const int own = padded(i + ROWS), count = before + own;
          const uint32_t* q = (const uint32_t*)&queries[(size_t)(text.at + i) * E];
          if (parent) product(q, E / 2, &keys_across[parent->at], row.total, E / 2, scores.data(), most, before, false);
          product(q, E / 2, &keys_across[text.at], row.total, E / 2, &scores[before], most, own, false);
          float inverse[ROWS];
          for (int r = 0; r < ROWS; r++) {
            float* s = &scores[r * most];
            __m512 top = _mm512_set1_ps(-INFINITY);
            for (int k = 0; k < count; k += LANES) {
              const int last = k < before ? parent->length - 1 - k : i + r - (k - before);
              const __mmask16 seen = _mm512_cmple_epi32_mask(lanes(), _mm512_set1_epi32(last));
              const __m512 v = _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), seen, _mm512_loadu_ps(s + k));
              _mm512_storeu_ps(s + k, v);
              top = _mm512_max_ps(top, v);
            }
            const float highest = _mm512_reduce_max_ps(top);
            const __m512 shift = _mm512_set1_ps(-highest * factor);
            __m512 all = _mm512_setzero_ps();
            for (int k = 0; k < count; k += LANES) {
              const __m512 v = _mm512_loadu_ps(s + k);
              const __mmask16 seen = _mm512_cmp_ps_mask(v, _mm512_set1_ps(-INFINITY), _CMP_NEQ_OQ);
              const __m512 e = _mm512_maskz_mov_ps(seen, exponential(_mm512_fmadd_ps(v, _mm512_set1_ps(factor), shift)));
              all = _mm512_add_ps(all, e);
              store(&p[r * most + k], e);
            }
            const float sum = _mm512_reduce_add_ps(all);
            inverse[r] = 1 / sum;
            if (i + r < text.length)
              logsums[((size_t)b * c.heads + h) * c.length + text.start + i + r] = highest * factor + std::log(sum);
          }
          const uint32_t* words = (const uint32_t*)p.data();
          if (parent) product(words, most / 2, &value_pairs[(size_t)parent->at / 2 * E], E, before / 2, sums.data(), E, E, false);
          product(words + before / 2, most / 2, &value_pairs[(size_t)text.at / 2 * E], E, own / 2, sums.data(), E, E, parent != nullptr);
          for (int r = 0; r < ROWS && i + r < text.length; r++)
            for (int e = 0; e < E; e += LANES)
              store(y + (((size_t)b * c.length + text.start + i + r) * c.heads + h) * E + e,
                    _mm512_mul_ps(_mm512_loadu_ps(&sums[(size_t)r * E + e]), _mm512_set1_ps(inverse[r])));
        }
      }
    }
  }
}

// `d_qkv`: as `qkv`; `d_q_weight`, `d_k_weight`: [E] each, with a norm.
void crawltalk_attention_backward(const Call* call, const uint16_t* y, const float* logsums, const uint16_t* d_y,
                                  uint16_t* d_qkv, float* d_q_weight, float* d_k_weight) {
  const Call& c = *call;
  const int E = c.size, each = c.heads / c.kv_heads;
  const float factor = 1 / std::sqrt((float)E);
  std::vector<uint16_t> keys, values, queries, d_out, p, d_s;
  std::vector<uint32_t> queries_across, d_out_across, query_pairs, d_out_pairs, key_pairs, keys_turned, d_s_pairs;
  std::vector<float> d_keys, d_values, d_queries, d_turned, scores, d_p, along, logsum;
  for (int b = 0; b < c.batch; b++) {
    const Row row(c, b);
    const int total = row.total;
    const size_t stride = (size_t)(c.heads + 2 * c.kv_heads) * E;
    for (int h = 0; h < c.heads; h++) {
      const int g = h / each;
      if (h % each == 0) {
        row.rotated(c.heads + g, c.k_weight, keys);
        row.gathered(c.qkv + row.at(0, c.heads + c.kv_heads + g), stride, values);
        pair_rows(keys, total, E, key_pairs);
        keys_turned.resize((size_t)E * total / 2);  // [E][total / 2]
        for (int t = 0; t < total / 2; t++)
          for (int e = 0; e < E; e++) keys_turned[(size_t)e * total / 2 + t] = key_pairs[(size_t)t * E + e];
        d_keys.assign((size_t)total * E, 0), d_values.assign((size_t)total * E, 0);
      }
      row.rotated(h, c.q_weight, queries);
      const uint16_t* given = d_y + ((size_t)b * c.length * c.heads + h) * E;
      row.gathered(given, (size_t)c.heads * E, d_out);
      transpose_words(queries, total, E, queries_across), transpose_words(d_out, total, E, d_out_across);
      pair_rows(queries, total, E, query_pairs), pair_rows(d_out, total, E, d_out_pairs);
      along.assign(total, 0), logsum.assign(total, INFINITY);  // so that there is nothing between texts
      row.each([&](int t, int at) {
        const uint16_t *one = given + (size_t)t * c.heads * E, *other = y + (((size_t)b * c.length + t) * c.heads + h) * E;
        __m512 sum = _mm512_setzero_ps();
        for (int e = 0; e < E; e += LANES) sum = _mm512_fmadd_ps(load(one + e), load(other + e), sum);
        along[at] = _mm512_reduce_add_ps(sum);
        logsum[at] = logsums[((size_t)b * c.heads + h) * c.length + t];
      });
      d_queries.assign((size_t)total * E, 0);
      for (const Text& text : row.texts) {
        const int width = padded(text.length);  // of the queries
        p.resize((size_t)KEYS * width), d_s.resize((size_t)KEYS * width), d_s_pairs.resize((size_t)KEYS / 2 * width);
        scores.resize((size_t)ROWS * width), d_p.resize((size_t)ROWS * width);
        d_turned.assign((size_t)E * width, 0);  // [E][width]
        auto learn = [&](const Text& seen, bool own) {
          for (int block = 0; block < padded(seen.length); block += KEYS) {
            const int stop = std::min(block + KEYS, padded(seen.length));
            for (int j = block; j < stop; j += ROWS) {
              const int first = own ? j / LANES * LANES : 0, count = width - first;  // earlier queries see none of these
              const size_t key = (size_t)(seen.at + j) * E;
              product((const uint32_t*)&keys[key], E / 2, &queries_across[text.at + first], total, E / 2, &scores[first], width, count, false);
              product((const uint32_t*)&values[key], E / 2, &d_out_across[text.at + first], total, E / 2, &d_p[first], width, count, false);
              for (int r = 0; r < ROWS; r += 2)
                for (int i = first; i < width; i += LANES) {
                  const __m512 shift = _mm512_loadu_ps(&logsum[text.at + i]), less = _mm512_loadu_ps(&along[text.at + i]);
                  __m256i pair[2];
                  for (int one = 0; one < 2; one++) {
                    const int k = j + r + one;
                    // queries from k on, or all, where there is such a key
                    const int from = k >= seen.length ? LANES : own ? k - i : 0;
                    const __mmask16 sees = _mm512_cmpge_epi32_mask(lanes(), _mm512_set1_epi32(from));
                    const size_t place = (size_t)(r + one) * width + i;
                    const __m512 score = _mm512_fmsub_ps(_mm512_loadu_ps(&scores[place]), _mm512_set1_ps(factor), shift);
                    const __m512 share = _mm512_maskz_mov_ps(sees, exponential(score));
                    const size_t to = (size_t)(k - block) * width + i;
                    store(&p[to], share);
                    pair[one] = narrow(_mm512_mul_ps(share, _mm512_sub_ps(_mm512_loadu_ps(&d_p[place]), less)));
                    _mm256_storeu_si256((__m256i*)&d_s[to], pair[one]);
                  }
                  const __m512i high = _mm512_slli_epi32(_mm512_cvtepu16_epi32(pair[1]), 16);
                  _mm512_storeu_si512(&d_s_pairs[(size_t)(j + r - block) / 2 * width + i], _mm512_or_si512(_mm512_cvtepu16_epi32(pair[0]), high));
                }
              const size_t words = ((size_t)(j - block) * width + first) / 2, pairs = (size_t)(text.at + first) / 2 * E;
              product((const uint32_t*)p.data() + words, width / 2, &d_out_pairs[pairs], E, count / 2, &d_values[key], E, E, true);
              product((const uint32_t*)d_s.data() + words, width / 2, &query_pairs[pairs], E, count / 2, &d_keys[key], E, E, true);
            }
            for (int i = own ? block / LANES * LANES : 0; i < width; i += LANES) {
              const int count = own ? std::min(stop, i + LANES) - block : stop - block;  // later keys are not seen
              for (int e = 0; e < E; e += ROWS)
                tile<1>(&keys_turned[(size_t)e * total / 2 + (seen.at + block) / 2], total / 2, &d_s_pairs[i], width, count / 2,
                        &d_turned[(size_t)e * width + i], width, true);
            }
          }
        };
        if (text.parent >= 0) learn(row.texts[text.parent], false);
        learn(text, true);
        for (int e = 0; e < E; e++)
          for (int i = 0; i < text.length; i++) d_queries[(size_t)(text.at + i) * E + e] = d_turned[(size_t)e * width + i] * factor;
      }
      row.rotated_back(h, c.q_weight, d_queries, d_qkv, d_q_weight);
      if (h % each == each - 1) {
        for (float& d : d_keys) d *= factor;
        row.rotated_back(c.heads + g, c.k_weight, d_keys, d_qkv, d_k_weight);
        row.each([&](int t, int at) {
          for (int e = 0; e < E; e += LANES)
            store(d_qkv + row.at(t, c.heads + c.kv_heads + g) + e, _mm512_loadu_ps(&d_values[(size_t)at * E + e]));
        });
      }
    }
  }
}

}  // extern "C"

#else

extern "C" {
int crawltalk_supported() { return 0; }
}

#endif
