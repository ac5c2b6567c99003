// SHA-256 of two arrays at once by the processor's SHA instructions (x86 SHA-NI).
//
// Of one array each instruction waits for the one before it, and the SHA unit idles between them. The instructions of a
// second array, which depend on nothing of the first, fill these gaps.
#pragma once
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static const uint32_t SHA256_CONSTANTS[64] __attribute__((aligned(16))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98,
    0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786,
    0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8,
    0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13,
    0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819,
    0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a,
    0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
    0xc67178f2};

typedef struct {
  __m128i abef, cdgh;  // the eight words of the state in the order that the instructions want
} Sha256;

static inline Sha256 sha256_start(void) {
  return (Sha256){_mm_set_epi32(0x6a09e667, 0xbb67ae85, 0x510e527f, 0x9b05688c),
                  _mm_set_epi32(0x3c6ef372, 0xa54ff53a, 0x1f83d9ab, 0x5be0cd19)};
}
static inline __m128i sha256_load(const uint8_t *bytes) {  // four big-endian words
  const __m128i order = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
  return _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)bytes), order);
}
static inline void sha256_extend(__m128i w[4], int i) {  // the next four words of the message, in place of the oldest
  __m128i late = w[(i + 3) % 4], seventh = _mm_alignr_epi8(late, w[(i + 2) % 4], 4);
  w[i % 4] = _mm_sha256msg2_epu32(_mm_add_epi32(_mm_sha256msg1_epu32(w[i % 4], w[(i + 1) % 4]), seventh), late);
}
static inline void sha256_rounds(Sha256 *s, __m128i w, int i) {  // four
  w = _mm_add_epi32(w, _mm_load_si128((const __m128i *)SHA256_CONSTANTS + i));
  s->cdgh = _mm_sha256rnds2_epu32(s->cdgh, s->abef, w);
  s->abef = _mm_sha256rnds2_epu32(s->abef, s->cdgh, _mm_shuffle_epi32(w, 0x0e));
}
// As many blocks of 64 bytes of either array.
static void sha256_blocks(Sha256 *first, const uint8_t *p, Sha256 *second, const uint8_t *q, size_t blocks) {
  Sha256 s = *first, t = *second;
  for (; blocks; blocks--, p += 64, q += 64) {
    Sha256 s0 = s, t0 = t;
    __m128i w[4], v[4];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) {
      if (i < 4) w[i] = sha256_load(p + 16 * i), v[i] = sha256_load(q + 16 * i);
      else sha256_extend(w, i), sha256_extend(v, i);
      sha256_rounds(&s, w[i % 4], i);
      sha256_rounds(&t, v[i % 4], i);
    }
    s = (Sha256){_mm_add_epi32(s.abef, s0.abef), _mm_add_epi32(s.cdgh, s0.cdgh)};
    t = (Sha256){_mm_add_epi32(t.abef, t0.abef), _mm_add_epi32(t.cdgh, t0.cdgh)};
  }
  *first = s, *second = t;
}
// The digest of `size` bytes of which `taken`, a multiple of 64, are in the state. Here the second array is the first
// once more: only ends come here, so code for one alone would save nothing.
static void sha256_finish(Sha256 s, const uint8_t *bytes, size_t taken, size_t size, uint8_t digest[32]) {
  size_t rest = size % 64, padded = rest < 56 ? 64 : 128;
  uint8_t end[128] = {0};
  Sha256 same = s;
  sha256_blocks(&s, bytes + taken, &same, bytes + taken, (size - taken) / 64);
  memcpy(end, bytes + size - rest, rest);
  end[rest] = 0x80;
  for (int i = 0; i < 8; i++) end[padded - 1 - i] = (uint64_t)size * 8 >> 8 * i;
  sha256_blocks(&s, end, &same, end, padded / 64);
  uint32_t word[8];  // f e b a h g d c
  memcpy(word, &s, sizeof word);
  const int order[8] = {3, 2, 7, 6, 1, 0, 5, 4};
  for (int i = 0; i < 8; i++) memcpy(digest + 4 * i, &(uint32_t){__builtin_bswap32(word[order[i]])}, 4);
}
// The digests of two arrays, one behind the other.
static void sha256_pair(const uint8_t *p, size_t n, const uint8_t *q, size_t m, uint8_t digests[64]) {
  Sha256 s = sha256_start(), t = sha256_start();
  size_t both = (n < m ? n : m) & ~(size_t)63;
  sha256_blocks(&s, p, &t, q, both / 64);
  sha256_finish(s, p, both, n, digests);
  sha256_finish(t, q, both, m, digests + 32);
}
