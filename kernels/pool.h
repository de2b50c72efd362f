// Threads for large work: woken when there are units to do, asleep otherwise.
#ifndef ONNXCAM_POOL_H
#define ONNXCAM_POOL_H

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <mutex>
#include <system_error>
#include <thread>

#ifndef _WIN32
#include <unistd.h>
#endif

namespace onnxcam {

// The caller works too, and waits only for threads that took a unit: one that wakes late, on a
// busy machine, delays nothing. A second caller at the same time works alone.
class Pool {
public:
    using Work = std::function<int(size_t unit)>;

    // Calls work(0) to work(units - 1), in any order; returns whether one of them failed.
    static bool run(size_t units, size_t threads, const Work &work) {
        if (threads > units) threads = units;
        Pool *pool = threads > 1 ? instance() : nullptr;
        std::unique_lock<std::mutex> busy;
        if (pool) busy = std::unique_lock<std::mutex>(pool->busy, std::try_to_lock);
        if (busy) return pool->share(units, threads - 1, work);
        int failed = 0;
        for (size_t unit = 0; unit < units && !failed; ++unit) failed = work(unit);
        return failed != 0;
    }

private:
    struct Job {
        const Work &work;
        size_t units, helpers;
        std::atomic<size_t> next{0};
        std::atomic<bool> failed{false};

        void help() {
            for (size_t unit; (unit = next.fetch_add(1)) < units;)
                if (work(unit)) failed = true;
        }
    };

    std::mutex busy, mutex;
    std::condition_variable posted, left;
    Job *job = nullptr;
    size_t started = 0;
    std::atomic<size_t> number{0}, inside{0};
    long process = 0;

    // To fall asleep and be woken takes as long as a small job, so look around for a while first.
    template <typename Condition> static void linger(Condition condition) {
        using clock = std::chrono::steady_clock;
        const auto end = clock::now() + std::chrono::microseconds(50);
        while (!condition() && clock::now() < end) std::this_thread::yield();
    }

    // Threads do not survive a fork, and what they held stays locked: a child starts afresh. A
    // pool is never destroyed, since its threads sleep in it until the process ends.
    static Pool *instance() {
        static std::atomic<Pool *> current{nullptr};
#ifdef _WIN32
        const long process = 0;
#else
        const long process = getpid();
#endif
        Pool *pool = current.load();
        if (pool && pool->process == process) return pool;
        Pool *fresh = new Pool;
        fresh->process = process;
        if (current.compare_exchange_strong(pool, fresh)) return fresh;
        delete fresh;
        return pool;
    }

    bool share(size_t units, size_t helpers, const Work &work) {
        Job mine{work, units, helpers};
        {
            std::lock_guard<std::mutex> lock(mutex);
            try {
                for (; started < helpers; ++started)
                    std::thread(&Pool::serve, this, started, number.load()).detach();
            } catch (const std::system_error &) {  // fewer threads do it too
            }
            job = &mine;
            ++number;
        }
        posted.notify_all();
        mine.help();
        std::unique_lock<std::mutex> lock(mutex);
        job = nullptr;
        lock.unlock();
        linger([this] { return inside == 0; });
        lock.lock();
        left.wait(lock, [this] { return inside == 0; });
        return mine.failed;
    }

    void serve(size_t self, size_t seen) {
        std::unique_lock<std::mutex> lock(mutex);
        for (;;) {
            lock.unlock();
            linger([&] { return number != seen; });
            lock.lock();
            posted.wait(lock, [&] { return number != seen; });
            seen = number;
            if (!job || self >= job->helpers) continue;
            Job *mine = job;
            ++inside;
            lock.unlock();
            mine->help();
            lock.lock();
            if (--inside == 0) left.notify_one();
        }
    }
};

}  // namespace onnxcam

#endif
