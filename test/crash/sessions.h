// What a client does between opening an image and losing it.
//
// Errors: throw as expect_ok(). The functions are CrashExplorer sessions.

#pragma once

#include "test/support/modelled_image.h"
#include "test/support/random.h"
#include "test/support/stack_builder.h"

namespace obd::test {

// A stack that makes short recordings: a small disk of random size over a lower or none.
StackOptions small_stack(Random& random, UpperKind kind);

// One random write (aligned, of sectors, of bytes), zero, trim or flush.
void random_operation(ModelledImage& image, Random& random);

// Several dozen of them from one thread, with reopens after a close and after a kill; sometimes
// closed at the end.
void long_session(ModelledImage& image, Random& random);

// A few; sometimes beginning with a flush, sometimes closed at the end.
void short_session(ModelledImage& image, Random& random);

// Several threads at once, each with sectors of its own, which share blocks.
void threads_session(ModelledImage& image, Random& random);

// Fills the log with dead records, then closes; what comes last rewrites the log.
void wearing_session(ModelledImage& image, Random& random);

// As long_session, with dead space given back now and then. The image reclaims.
void reclaiming_session(ModelledImage& image, Random& random);

// Several threads at once, one of which gives dead space back. The image reclaims.
void reclaiming_threads_session(ModelledImage& image, Random& random);

// Fills several sectors of the log between two flushes; what comes last is the flush.
void crowded_session(ModelledImage& image, Random& random);

}  // namespace obd::test
