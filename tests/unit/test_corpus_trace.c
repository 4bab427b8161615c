/*
 * What fuzzing the trace reader found worth keeping (tests/fuzz/corpus_trace.tar.xz), read and
 * analysed once more, as test_corpus.c does it for sessions.
 */
#include "test_corpus.c"
