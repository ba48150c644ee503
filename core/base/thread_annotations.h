// What clang's thread-safety analysis is told: which lock guards what, who wants which lock held,
// and in which order locks are taken. Every build with clang checks it (-Wthread-safety); g++ sees
// nothing.
//
// The analysis looks at one function at a time and does not look into lambdas: one that runs with a
// lock held begins with that lock's assert_held() or assert_held_shared(), which generate no code.
//
// Source: https://clang.llvm.org/docs/ThreadSafetyAnalysis.html

#pragma once

#if defined(__clang__)
#define OBD_THREAD_ATTRIBUTE(x) __attribute__((x))
#else
#define OBD_THREAD_ATTRIBUTE(x)
#endif

// Of types.
#define OBD_CAPABILITY(name) OBD_THREAD_ATTRIBUTE(capability(name))
#define OBD_SCOPED_CAPABILITY OBD_THREAD_ATTRIBUTE(scoped_lockable)

// Of members.
#define OBD_GUARDED_BY(lock) OBD_THREAD_ATTRIBUTE(guarded_by(lock))
#define OBD_ACQUIRED_BEFORE(...) OBD_THREAD_ATTRIBUTE(acquired_before(__VA_ARGS__))

// Of functions: what the caller holds.
#define OBD_REQUIRES(...) OBD_THREAD_ATTRIBUTE(requires_capability(__VA_ARGS__))
#define OBD_REQUIRES_SHARED(...) OBD_THREAD_ATTRIBUTE(requires_shared_capability(__VA_ARGS__))
#define OBD_EXCLUDES(...) OBD_THREAD_ATTRIBUTE(locks_excluded(__VA_ARGS__))
#define OBD_ASSERT_HELD(...) OBD_THREAD_ATTRIBUTE(assert_capability(__VA_ARGS__))
#define OBD_ASSERT_HELD_SHARED(...) OBD_THREAD_ATTRIBUTE(assert_shared_capability(__VA_ARGS__))

// Of functions: what they take and release.
#define OBD_ACQUIRE(...) OBD_THREAD_ATTRIBUTE(acquire_capability(__VA_ARGS__))
#define OBD_ACQUIRE_SHARED(...) OBD_THREAD_ATTRIBUTE(acquire_shared_capability(__VA_ARGS__))
#define OBD_RELEASE(...) OBD_THREAD_ATTRIBUTE(release_capability(__VA_ARGS__))
#define OBD_RELEASE_SHARED(...) OBD_THREAD_ATTRIBUTE(release_shared_capability(__VA_ARGS__))
#define OBD_RELEASE_GENERIC(...) OBD_THREAD_ATTRIBUTE(release_generic_capability(__VA_ARGS__))
#define OBD_NO_THREAD_SAFETY_ANALYSIS OBD_THREAD_ATTRIBUTE(no_thread_safety_analysis)
#define OBD_RETURN_CAPABILITY(lock) OBD_THREAD_ATTRIBUTE(lock_returned(lock))
