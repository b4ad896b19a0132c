"""How the scripts here time what they time; it imports no library that is timed."""

import time

# What language.py and the benchmark of language models time.
LANGUAGE_WORKS = ["1x16", "1x128", "4x256", "1x1024", "64_one_by_one"]


def measure(work, seconds, least=10):
    """Times of single runs: warmed up for a tenth of the time, then so many runs at least."""
    clock, times = time.perf_counter, []
    start = clock()
    while clock() - start < seconds / 10 or not times:
        times = [work()]
    times, start = [], clock()
    while clock() - start < seconds or len(times) < least:
        before = clock()
        work()
        times.append(clock() - before)
    return times
