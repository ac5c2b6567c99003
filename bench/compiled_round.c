// A federated round as a compiled program: how near to the bare wire can any program come that keeps koinon's promises?
//
// A server and two clients, three processes on the loopback. Each round the server sends the model and its name; each
// client checks that and sends an update in chunks with their SHA-256; the server checks each chunk, writes it to a
// file, adds it to the exact sum of koinon.exact, makes the next model, writes it, and names it and the total. There is
// no training, HTTP, journal, signature, check of norms, or client that comes or goes.
//
// compiled_round BYTES ROUNDS FOLDER clear|tls openssl|pair flat|tree strict|eager
//   BYTES of a model; FOLDER for files, with server.pem, server.key and ca.pem for TLS; digests by OpenSSL or two at
//   once; a name is SHA-256, or SHA-256 of the pieces' SHA-256; the next model when all updates are in, or by pieces.
// It prints one JSON object: each round's seconds, the core-seconds of all processes a round, the last names.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sha256_pair.h"

#define CLIENTS 2
#define PIECE ((size_t)4 << 20)  // bytes: what updates travel in, and the leaves of a tree
#define STEP (2 * PIECE)         // bytes: what is hashed at once, so that two digests can go side by side
#define WARM ((size_t)1 << 18)   // bytes: what a flat name takes at once, to find it in the cache
#define PIECES 1024              // at most
static const float SCALE = 1 << 30;
static size_t model_bytes, pieces;
static int rounds, tls, pair, tree, eager;

static void require(int fine, const char *what) {
  if (fine) return;
  fprintf(stderr, "compiled_round: %s\n", what);
  exit(1);
}
static double seconds_of(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return now.tv_sec + 1e-9 * now.tv_nsec;
}
static size_t least(size_t a, size_t b) { return a < b ? a : b; }
static void *memory(size_t size) {  // zeros in large pages, touched: page faults are no part of a round
  void *made = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  require(made != MAP_FAILED, "there is not enough memory");
  madvise(made, size, MADV_HUGEPAGE);
  return memset(made, 0, size);
}

// ---- Names

typedef struct {
  EVP_MD_CTX *hash;
  uint8_t list[2 * PIECES][32];  // a tree's leaves
  size_t listed;
} Name;

static size_t digests(const uint8_t *bytes, size_t size, uint8_t out[64]) {  // of one or two pieces; returns how many
  size_t first = least(size, PIECE), second = size - first;
  if (pair && second) return sha256_pair(bytes, first, bytes + first, second, out), 2;
  EVP_Digest(bytes, first, out, 0, EVP_sha256(), 0);
  if (second) EVP_Digest(bytes + first, second, out + 32, 0, EVP_sha256(), 0);
  return second ? 2 : 1;
}
static void name_start(Name *name) {
  if (!name->hash) name->hash = EVP_MD_CTX_new();
  EVP_DigestInit_ex(name->hash, EVP_sha256(), 0);
  name->listed = 0;
}
static void name_take(Name *name, const uint8_t *bytes, size_t size) {  // a tree takes whole steps, but for the last
  if (tree) name->listed += digests(bytes, size, name->list[name->listed]);
  else EVP_DigestUpdate(name->hash, bytes, size);
}
static void name_finish(Name *name, uint8_t digest[32]) {
  if (tree) EVP_DigestUpdate(name->hash, name->list, 32 * name->listed);
  EVP_DigestFinal_ex(name->hash, digest, 0);
}

// ---- Connections

static void send_all(BIO *to, const void *bytes, size_t size) {
  for (size_t sent; size; bytes = (const char *)bytes + sent, size -= sent)
    require(BIO_write_ex(to, bytes, size, &sent), "the other side is gone");
}
static void flush(BIO *to) { require(BIO_flush(to) == 1, "the other side is gone"); }
static void receive_all(BIO *from, void *bytes, size_t size) {
  for (size_t came; size; bytes = (char *)bytes + came, size -= came)
    require(BIO_read_ex(from, bytes, size, &came), "the other side is gone");
}
static BIO *connection(int socket, int server) {
  setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
  BIO *wire = BIO_new_socket(socket, BIO_NOCLOSE);
  if (!tls) return wire;
  SSL_CTX *context = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
  SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
  SSL_CTX_set_num_tickets(context, 0);
  SSL_CTX_set_read_ahead(context, 1);  // several records a system call, as the buffer below for what is written
  SSL_CTX_set_default_read_buffer_len(context, 1 << 16);
  SSL_CTX_set_verify(context, server ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, 0);
  if (!server) require(SSL_CTX_load_verify_locations(context, "ca.pem", 0) == 1, "no ca.pem in FOLDER");
  else require(SSL_CTX_use_certificate_chain_file(context, "server.pem") == 1 &&
               SSL_CTX_use_PrivateKey_file(context, "server.key", SSL_FILETYPE_PEM) == 1, "no server.pem with key");
  BIO *gather = BIO_new(BIO_f_buffer());
  BIO_set_write_buffer_size(gather, 1 << 16);
  BIO *made = BIO_push(BIO_new_ssl(context, !server), BIO_push(gather, wire));
  SSL *ssl;
  BIO_get_ssl(made, &ssl);
  BIO_up_ref(wire);
  SSL_set0_rbio(ssl, wire);  // past the buffer, which when read from waits until it is full
  require(BIO_do_handshake(made) == 1, "no TLS handshake");
  return made;
}

// ---- A client

static void make_update(int client, float *update) {
  uint64_t random = 88172645463325252u + 977 * client;
  for (size_t i = 0; i < model_bytes / 4; i++) {
    random ^= random << 13, random ^= random >> 7, random ^= random << 17;
    update[i] = (float)((int)(random & 0xffff) - 32768) * 1e-6f;
  }
}
static void take_part(int client, struct sockaddr_in server, int report) {
  uint8_t *model = memory(model_bytes), *update = memory(model_bytes), announced[32], digest[64];
  Name *name = memory(sizeof *name);
  make_update(client, (float *)update);
  int wire = socket(AF_INET, SOCK_STREAM, 0);
  require(!connect(wire, (struct sockaddr *)&server, sizeof server), "no connection to the server");
  BIO *to = connection(wire, 0);
  double used = 0;
  for (int round = 0; round <= rounds; round++) {
    if (round == 1) used = seconds_of(CLOCK_PROCESS_CPUTIME_ID);  // round 0 opens files and fills buffers
    receive_all(to, announced, 32);
    name_start(name);
    for (size_t at = 0, size; at < model_bytes; at += size) {
      size = least(tree ? STEP : WARM, model_bytes - at);
      receive_all(to, model + at, size);
      name_take(name, model + at, size);
    }
    name_finish(name, digest);
    require(!memcmp(digest, announced, 32), "a client's model is not the one that was named");
    for (size_t at = 0, size; at < model_bytes; at += size) {
      size = least(STEP, model_bytes - at);
      send_all(to, digest, 32 * digests(update + at, size, digest));
      send_all(to, update + at, size);
      flush(to);
    }
  }
  used = (seconds_of(CLOCK_PROCESS_CPUTIME_ID) - used) / rounds;
  exit(write(report, &used, sizeof used) != sizeof used);
}

// ---- The server

typedef struct {
  void *bytes;
  size_t scale;  // bytes for each byte of a model
  uint8_t name[32];
  int named;  // times
} Content;

static BIO *clients[CLIENTS];
static Content model = {.scale = 1}, total = {.scale = 2};
// What threads wait for counts from the start of the program and is never set back.
static pthread_mutex_t state = PTHREAD_MUTEX_INITIALIZER, adding[PIECES];
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int begun, settled, uploads;  // rounds, rounds, updates
static int added[PIECES];            // updates in the total, by piece
static size_t made;                  // pieces of models, the first among them
#define SET(change) \
  (pthread_mutex_lock(&state), change, pthread_cond_broadcast(&changed), pthread_mutex_unlock(&state))
#define AWAIT(condition)                                     \
  for (int done = (pthread_mutex_lock(&state), 0); !done;) { \
    if ((done = (condition))) pthread_mutex_unlock(&state);  \
    else pthread_cond_wait(&changed, &state);                \
  }

static int spool(const char *name) {  // kept for all rounds, as koinon does: a new file's pages cost the kernel more
  int file = open(name, O_CREAT | O_RDWR, 0600);
  require(file >= 0, "no file can be made in FOLDER");
  return file;
}
static void write_at(int file, const void *bytes, size_t size, size_t at) {
  require(pwrite(file, bytes, size, at) == (ssize_t)size, "a file in FOLDER cannot be written");
}
static void add(int64_t *into, const float *update, size_t count, int first) {  // the first replaces the last round's
  for (size_t i = 0; i < count; i++) into[i] = (first ? 0 : into[i]) + (int64_t)__builtin_rintf(update[i] * SCALE);
}
static void *serve(void *which) {
  int client = (int)(intptr_t)which, file = spool(client ? "update-1" : "update-0");
  BIO *with = clients[client];
  uint8_t *chunks = memory(STEP), announced[64], found[64];
  for (int round = 0; round <= rounds; round++) {
    AWAIT(begun > round);
    send_all(with, model.name, 32);
    send_all(with, model.bytes, model_bytes);
    flush(with);
    for (size_t at = 0, size; at < model_bytes; at += size) {
      size = least(STEP, model_bytes - at);
      receive_all(with, announced, size > PIECE ? 64 : 32);
      receive_all(with, chunks, size);
      require(!memcmp(found, announced, 32 * digests(chunks, size, found)), "a chunk is not the one that was named");
      write_at(file, chunks, size, at);
      for (size_t from = 0; from < size; from += PIECE) {
        size_t piece = (at + from) / PIECE;
        pthread_mutex_lock(adding + piece);
        int64_t *into = (int64_t *)total.bytes + (at + from) / 4;
        add(into, (float *)(chunks + from), least(PIECE, size - from) / 4, added[piece] == CLIENTS * round);
        SET(added[piece]++);
        pthread_mutex_unlock(adding + piece);
      }
    }
    SET(uploads++);
  }
  return 0;
}
// In place of the last model. Where a client can fail, an eager server would also have to keep that to go back to.
static void *make_models(void *none) {
  int file = spool("model");
  for (int round = 0; round <= rounds; round++) {
    for (size_t piece = 0; piece < pieces; piece++) {
      AWAIT(eager ? added[piece] == CLIENTS * (round + 1) : uploads == CLIENTS * (round + 1));
      size_t at = piece * PIECE, size = least(PIECE, model_bytes - at);
      float *next = (float *)model.bytes + at / 4;
      const int64_t *sum = (int64_t *)total.bytes + at / 4;
      for (size_t i = 0; i < size / 4; i++) next[i] = (float)(next[i] + sum[i] / (CLIENTS * (double)SCALE));
      SET(made++);
      write_at(file, next, size, at);
    }
    AWAIT(uploads == CLIENTS * (round + 1));
    SET(settled++);
  }
  return none;
}
static void *name_contents(void *which) {
  Content *content = which;
  Name *name = memory(sizeof *name);
  for (int time = 0; time <= rounds + 1; time++) {  // of the first model too, before the first round
    name_start(name);
    for (size_t at = 0, size; at < content->scale * model_bytes; at += size) {
      size = least(STEP, content->scale * model_bytes - at);
      AWAIT(made >= time * pieces + ((at + size) / content->scale + PIECE - 1) / PIECE);
      name_take(name, (uint8_t *)content->bytes + at, size);
    }
    name_finish(name, content->name);
    SET(content->named++);
  }
  return 0;
}

// ---- The run

static int right(void) {  // it all again in a plain loop, in doubles, which hold each product and sum exactly
  float *updates[CLIENTS];
  for (int client = 0; client < CLIENTS; client++) make_update(client, updates[client] = memory(model_bytes));
  for (size_t i = 0; i < model_bytes / 4; i++) {
    double sum = 0;
    for (int client = 0; client < CLIENTS; client++) sum += rint((double)updates[client][i] * SCALE);
    float value = 0;
    for (int round = 0; round <= rounds; round++) value += sum / (CLIENTS * (double)SCALE);
    if (((int64_t *)total.bytes)[i] != sum || ((float *)model.bytes)[i] != value) return 0;
  }
  return 1;
}
static int chosen(const char *value, const char *no, const char *yes) {
  if (!strcmp(value, no) || !strcmp(value, yes)) return !strcmp(value, yes);
  fprintf(stderr, "compiled_round: %s where it can be %s or %s\n", value, no, yes);
  exit(2);
}
int main(int count, char **values) {
  require(count == 8, "BYTES ROUNDS FOLDER clear|tls openssl|pair flat|tree strict|eager");
  model_bytes = strtoull(values[1], 0, 10), rounds = atoi(values[2]), pieces = (model_bytes + PIECE - 1) / PIECE;
  require(pieces && pieces <= PIECES && model_bytes % 4 == 0, "BYTES: whole float32 numbers, 4 GiB at most");
  require(rounds > 0 && !chdir(values[3]), "ROUNDS: one at least; FOLDER: one that is there");
  tls = chosen(values[4], "clear", "tls"), pair = chosen(values[5], "openssl", "pair");
  tree = chosen(values[6], "flat", "tree"), eager = chosen(values[7], "strict", "eager");

  int listening = socket(AF_INET, SOCK_STREAM, 0), report[2];
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t length = sizeof address;
  require(!bind(listening, (struct sockaddr *)&address, length) && !listen(listening, CLIENTS) && !pipe(report) &&
          !getsockname(listening, (struct sockaddr *)&address, &length), "no socket on 127.0.0.1");
  for (int client = 0; client < CLIENTS; client++)
    if (!fork()) close(listening), take_part(client, address, report[1]);
  close(report[1]);
  for (int client = 0; client < CLIENTS; client++) clients[client] = connection(accept(listening, 0, 0), 1);
  model.bytes = memory(model_bytes), total.bytes = memory(2 * model_bytes), made = pieces;

  for (size_t piece = 0; piece < pieces; piece++) pthread_mutex_init(adding + piece, 0);
  pthread_t thread;
  for (intptr_t client = 0; client < CLIENTS; client++) pthread_create(&thread, 0, serve, (void *)client);
  pthread_create(&thread, 0, make_models, 0);
  pthread_create(&thread, 0, name_contents, &model);
  pthread_create(&thread, 0, name_contents, &total);
  AWAIT(model.named && total.named);
  printf("{\"seconds\": [");
  double used = 0, of_client;
  for (int round = 0; round <= rounds; round++) {
    if (round == 1) used = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
    double start = seconds_of(CLOCK_MONOTONIC);
    SET(begun++);
    AWAIT(settled > round && model.named > round + 1 && total.named > round + 1);
    if (round) printf("%s%.4f", round > 1 ? ", " : "", seconds_of(CLOCK_MONOTONIC) - start);
  }
  used = (seconds_of(CLOCK_PROCESS_CPUTIME_ID) - used) / rounds;
  for (int client = 0; client < CLIENTS; client++, used += of_client)
    require(read(report[0], &of_client, sizeof of_client) == sizeof of_client && wait(0) > 0, "a client ended early");
  require(right(), "the total or the model is not what a plain loop makes of the updates");
  printf("], \"core_seconds\": %.4f", used);
  for (Content *content = &model; content; content = content == &model ? &total : 0) {
    printf(", \"%s\": \"", content == &model ? "model" : "total");
    for (int i = 0; i < 32; i++) printf("%02x", content->name[i]);
    printf("\"");
  }
  printf("}\n");
  return 0;
}
