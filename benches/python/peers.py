"""Python's processes and pools of them, doing the work of a row: `python3 peers.py pool|executor|process WORK`.

Prints one line of JSON: {"rounds": [...]}, seconds (or bytes) for one unit in each round, or {"absent": "why"}.
Every round's results are checked. A round that is not counted comes first.

Uses only the standard library, and the start method that this Python chooses by itself.
"""

import concurrent.futures
import concurrent.futures.process
import json
import multiprocessing
import multiprocessing.managers
import multiprocessing.shared_memory
import os
import signal
import socket
import struct
import sys
import time

WORKERS = 2
AT_THE_LONGEST = 60  # seconds
MASK = (1 << 64) - 1
LENGTH = 64 << 20


class Pool:
    """multiprocessing.Pool"""

    def __init__(self, **options):
        self.pool = multiprocessing.Pool(WORKERS, **options)

    def call(self, function, argument):
        return self.pool.apply(function, (argument,))

    def submit(self, function, argument):
        """A function that waits for the result."""
        return self.pool.apply_async(function, (argument,)).get

    def map(self, function, items):
        return self.pool.map(function, items)

    def end(self):
        self.pool.terminate()
        self.pool.join()


class Executor:
    """concurrent.futures.ProcessPoolExecutor"""

    def __init__(self):
        self.pool = concurrent.futures.ProcessPoolExecutor(WORKERS)

    def call(self, function, argument):
        return self.pool.submit(function, argument).result()

    def submit(self, function, argument):
        return self.pool.submit(function, argument).result

    def map(self, function, items):
        chunk = -(-len(items) // (WORKERS * 4))  # what Pool.map chooses; the default is one
        return list(self.pool.map(function, items, chunksize=chunk))

    def end(self):
        self.pool.shutdown()


class Process:
    """multiprocessing.Process, and a pipe for the result: one process for one call."""

    def call(self, function, argument):
        ours, theirs = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.Process(target=send, args=(theirs, function, argument))
        process.start()
        theirs.close()
        result = ours.recv()
        process.join()
        ours.close()
        return result

    def end(self):
        pass


def send(pipe, function, argument):
    pipe.send(function(argument))


def check(computed, expected):
    if computed != expected:
        sys.exit(f"computed {computed!r:.100} instead of {expected!r:.100}")


def seconds(work):
    """How long it took, and what it gave."""
    start = time.perf_counter()
    made = work()
    return time.perf_counter() - start, made


def rounds(count, one):
    return [one() for _ in range(count + 1)][1:]


# The tasks, which are those of the Rust side.


def step(number):
    return (number * 6364136223846793005 + 1) & MASK


def scramble(number):
    return ((number << 7 | number >> 25) & 0xFFFFFFFF) ^ 0x9E3779B9


def burn(steps):
    state = steps
    for _ in range(steps):
        state = (state * 6364136223846793005 + 1) & MASK
    return state


def digest(data):
    return len(data) + data[0] + data[len(data) // 2] + data[-1]


def made(fill):
    """The bytes, and when they were finished: the way of a result begins then."""
    data = bytes([fill]) * LENGTH
    return time.time_ns(), data


def wait_for_death(address):
    with socket.socket(socket.AF_UNIX) as stream:
        stream.connect(address)
        stream.sendall(os.getpid().to_bytes(4, sys.byteorder))
        stream.recv(1)


# The works. Each is given the class of the pool.


def call(kind):
    return calls(kind, 1_000, 0)


def call_apart(kind):
    return calls(kind, 40, 0.002)


def few_calls(kind):
    return calls(kind, 50, 0)


def calls(kind, count, pause):
    """The median of calls that are made one by one."""
    pool = kind()

    def one(number):
        time.sleep(pause) if pause else None
        taken, result = seconds(lambda: pool.call(step, number))
        check(result, step(number))
        return taken

    medians = rounds(5, lambda: sorted(map(one, range(count)))[count // 2])
    pool.end()
    return medians


def outstanding(kind):
    count = 20_000 if kind is Pool else 5_000
    pool = kind()
    expected = sum(map(step, range(count)))

    def one():
        def work():
            handles = [pool.submit(step, number) for number in range(count)]
            return sum(wait() for wait in handles)

        taken, total = seconds(work)
        check(total, expected)
        return taken / count

    figures = rounds(3, one)
    pool.end()
    return figures


def map_all(kind, function, items, units, count):
    pool = kind()
    known = {item: function(item) for item in set(items)}
    expected = [known[item] for item in items]

    def one():
        taken, results = seconds(lambda: pool.map(function, items))
        check(results, expected)
        return taken / units

    figures = rounds(count, one)
    pool.end()
    return figures


def map_trivial(kind):
    return map_all(kind, scramble, range(1_000_000), 1_000_000, 3)


def tasks(count, length):
    """As many steps as take so long here, when nothing disturbs them; almost the same in each."""
    sample = 20_000
    one = min(seconds(lambda: burn(sample))[0] for _ in range(9)) / sample
    steps = round(length / one)
    return [steps + number % 16 for number in range(count)]


def burn_evenly(kind):
    return map_all(kind, burn, tasks(10_000, 100e-6), 10_000, 2)


def mixture():
    return tasks(1, 100e-3) + tasks(1_000, 50e-6)


def mixed_map(kind):
    return map_all(kind, burn, mixture(), 1, 5)


def mixed_submits(kind):
    return submit_all(kind(), mixture(), 1, 5)


def recycle(kind):
    return submit_all(kind(maxtasksperchild=25), tasks(2_000, 50e-6), 2_000, 3)


def submit_all(pool, items, units, count):
    expected = [burn(item) for item in items]

    def one():
        taken, results = seconds(lambda: [wait() for wait in [pool.submit(burn, item) for item in items]])
        check(results, expected)
        return taken / units

    figures = rounds(count, one)
    pool.end()
    return figures


def argument(kind):
    pool = kind()
    fills = iter(range(256))

    def one():
        data = bytes([next(fills)]) * LENGTH
        taken, result = seconds(lambda: pool.call(digest, data))
        check(result, digest(data))
        return taken

    figures = rounds(5, one)
    pool.end()
    return figures


def result(kind):
    pool = kind()
    fills = iter(range(256))

    def one():
        fill = next(fills)
        finished, data = pool.call(made, fill)
        taken = (time.time_ns() - finished) / 1e9
        check(data, bytes([fill]) * LENGTH)
        return taken

    figures = rounds(5, one)
    pool.end()
    return figures


def memory(kind):
    """Bytes that a worker shares with no other process; of the workers, the one that has most."""

    def private(pid):
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as lines:
            return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))

    def one():
        pool = kind()
        check(pool.map(step, range(100)), [step(number) for number in range(100)])
        time.sleep(0.05)
        workers = multiprocessing.active_children()
        most = max(private(worker.pid) for worker in workers)
        pool.end()
        return most

    return rounds(3, one)


def death(kind):
    """From kill -9 to the error; the pool is a new one each time, since this ends a pool."""
    address = f"\0process-task-bench-python-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()

        def one():
            pool = kind()
            wait = pool.submit(wait_for_death, address)
            stream, _ = listener.accept()
            pid = int.from_bytes(stream.recv(4), sys.byteorder)
            start = time.perf_counter()
            os.kill(pid, signal.SIGKILL)
            try:
                wait(2)
            except concurrent.futures.process.BrokenProcessPool:
                taken = time.perf_counter() - start
            except multiprocessing.TimeoutError:
                taken = None
            else:
                sys.exit("a call whose worker was killed had a result")
            stream.close()
            pool.end()
            return taken

        if kind is Pool:
            # A process that dies holding the queue's lock stops the pool for good, so this is tried once.
            taken = one()
            return [taken] if taken is not None else "no error within 2 s: the call never ends"
        return rounds(50, one)


def lock(_):
    """Taking it and giving it back, alone."""
    mutex = multiprocessing.Lock()
    count = 200_000

    def one():
        def work():
            for _ in range(count):
                with mutex:
                    pass

        return seconds(work)[0] / count

    return rounds(5, one)


def contend(mutex, number, ready, over, pipe):
    """Takes the lock again and again until it is over: how often, and in how many seconds."""
    with ready.get_lock():
        ready.value += 1
    while ready.value < 2:
        pass
    count = 0

    def work():
        nonlocal count
        while not over.value:
            with mutex:
                number.value += 1
            count += 1

    pipe.send((seconds(work)[0], count))


def contended_lock(_):
    def one():
        mutex = multiprocessing.Lock()
        number = multiprocessing.RawValue("q", 0)
        ready, over = multiprocessing.Value("i", 0), multiprocessing.RawValue("b", 0)
        contenders = []
        for _ in range(2):
            ours, theirs = multiprocessing.Pipe(duplex=False)
            process = multiprocessing.Process(target=contend, args=(mutex, number, ready, over, theirs))
            process.start()
            contenders.append((process, ours))
        while ready.value < 2:
            time.sleep(0.0001)
        time.sleep(0.1)
        over.value = 1
        results = [pipe.recv() for _, pipe in contenders]
        for process, _ in contenders:
            process.join()
        check(number.value, sum(count for _, count in results))
        return 1 / sum(count / taken for taken, count in results)

    return rounds(3, one)


TURNS = 2_000


def take_turns(game):
    """The other side has answered once when the time begins."""

    def answer_all():
        for _ in range(TURNS + 1):
            game.answer()

    def one():
        other = multiprocessing.get_context("fork").Process(target=answer_all)
        other.start()
        check(game.ask(0), 1)

        def work():
            for number in range(TURNS):
                check(game.ask(number), number + 1)

        taken, _ = seconds(work)
        other.join()
        return taken / TURNS

    return rounds(5, one)


class Signals:
    """There, back, and the number."""

    def __init__(self, make, give, take):
        self.there, self.back, self.give, self.take = make(), make(), give, take
        self.number = multiprocessing.RawValue("q", 0)

    def ask(self, number):
        self.number.value = number
        self.give(self.there)
        self.take(self.back)
        return self.number.value

    def answer(self):
        self.take(self.there)
        self.number.value += 1
        self.give(self.back)


class Turn:
    """A number, which is odd while it is with the side that answers."""

    def __init__(self):
        self.changed = multiprocessing.Condition()
        self.turn = multiprocessing.RawValue("q", 0)

    def ask(self, number):
        with self.changed:
            self.turn.value = 2 * number + 1
            self.changed.notify()
            self.changed.wait_for(lambda: self.turn.value % 2 == 0)
            return self.turn.value // 2

    def answer(self):
        with self.changed:
            self.changed.wait_for(lambda: self.turn.value % 2 == 1)
            self.turn.value += 1
            self.changed.notify()


def semaphores(_):
    return take_turns(Signals(lambda: multiprocessing.Semaphore(0), lambda it: it.release(), lambda it: it.acquire()))


def events(_):
    def take(event):
        event.wait()
        event.clear()

    return take_turns(Signals(multiprocessing.Event, lambda event: event.set(), take))


def conditions(_):
    return take_turns(Turn())


def number_at(place):
    name, offset = place
    memory = multiprocessing.shared_memory.SharedMemory(name)
    number = struct.unpack_from("d", memory.buf, offset)[0]
    memory.close()
    return number


def shared_memory(kind):
    """The name of 1 GiB is passed, and one number read from it."""
    memory = multiprocessing.shared_memory.SharedMemory(create=True, size=1 << 30)
    try:
        struct.pack_into("d", memory.buf, 1 << 29, 42.5)
        pool, count = kind(), 500

        def one(_):
            taken, number = seconds(lambda: pool.call(number_at, (memory.name, 1 << 29)))
            check(number, 42.5)
            return taken

        medians = rounds(5, lambda: sorted(map(one, range(count)))[count // 2])
        pool.end()
        return medians
    finally:
        memory.close()
        memory.unlink()


def produce(queue, items, ready, over):
    ready.wait()
    for item in items:
        queue.put(item)
    over.wait()  # a process that ends before its thread has written all may take the rest along


def consume(queue, count, ready):
    """The sum of what came, and in how many seconds."""
    ready.wait()
    return seconds(lambda: sum(number_of(queue.get()) for _ in range(count)))


def consume_for(pipe, queue, count, ready):
    pipe.send(consume(queue, count, ready))


def number_of(item):
    return item if isinstance(item, int) else int.from_bytes(item[:8], sys.byteorder)


def through_queue(sides, make):
    """So many producers and consumers, of which this process is one; the slowest consumer counts."""
    count = 20_000
    part = count // sides
    items = [make(number) for number in range(1, part + 1)]

    def one():
        fork = multiprocessing.get_context("fork")
        queue, ready, over = fork.Queue(1024), fork.Barrier(2 * sides), fork.Event()
        others = [fork.Process(target=produce, args=(queue, items, ready, over)) for _ in range(sides)]
        pipes = []
        for _ in range(1, sides):
            ours, theirs = fork.Pipe(duplex=False)
            pipes.append(ours)
            others.append(fork.Process(target=consume_for, args=(theirs, queue, part, ready)))
        for other in others:
            other.start()
        shares = [consume(queue, part, ready)] + [pipe.recv() for pipe in pipes]
        over.set()
        for other in others:
            other.join()
        check(sum(total for _, total in shares), sides * part * (part + 1) // 2)
        return max(taken for taken, _ in shares) / count

    return rounds(5, one)


def queue_of_numbers(_):
    return through_queue(1, lambda number: number)


def queue_of_blocks(_):
    return through_queue(2, lambda number: number.to_bytes(8, sys.byteorder) * 8)


def there_and_back(answer, ask, first, count):
    """Seconds for one turn with a process that answers; once before the time begins."""

    def one():
        ours, theirs = multiprocessing.Pipe()

        def answer_all():
            for _ in range(count + 1):
                answer(theirs)

        other = multiprocessing.get_context("fork").Process(target=answer_all)
        other.start()
        state = ask(ours, first)

        def work():
            last = state
            for _ in range(count):
                last = ask(ours, last)
            return last

        taken, last = seconds(work)
        other.join()
        ours.close()
        theirs.close()
        return taken / count, last

    return one


def pipe_of_numbers(_):
    def answer(pipe):
        pipe.send(pipe.recv() + 1)

    def ask(pipe, number):
        pipe.send(number)
        return pipe.recv()

    turn = there_and_back(answer, ask, 0, 5_000)

    def one():
        taken, last = turn()
        check(last, 5_001)
        return taken

    return rounds(5, one)


def pipe_of_bytes(_):
    """Half of there and back, for 16 MiB."""

    def answer(pipe):
        pipe.send_bytes(pipe.recv_bytes())

    def ask(pipe, data):
        pipe.send_bytes(data)
        return pipe.recv_bytes()

    data = os.urandom(16 << 20)
    turn = there_and_back(answer, ask, data, 4)

    def one():
        taken, last = turn()
        check(last, data)
        return taken / 2

    return rounds(5, one)


class Counter:
    def __init__(self):
        self.sum = 0

    def add(self, number):
        self.sum += number
        return self.sum


class Manager(multiprocessing.managers.SyncManager):
    pass


Manager.register("Counter", Counter)


def manager_calls(count, pause):
    """The median of calls of an object in a manager."""
    with Manager() as manager:
        counter = manager.Counter()
        counter.add(0)

        def one(number):
            time.sleep(pause) if pause else None
            taken, total = seconds(lambda: counter.add(number))
            check(total >= number, True)
            return taken

        return rounds(5, lambda: sorted(map(one, range(count)))[count // 2])


def manager_call(_):
    return manager_calls(1_000, 0)


def manager_call_apart(_):
    return manager_calls(40, 0.002)


def manager_insert(_):
    count = 3_000
    with Manager() as manager:
        shared = manager.dict()

        def one():
            shared.clear()

            def work():
                for number in range(count):
                    shared[number] = number

            taken, _ = seconds(work)
            check(len(shared), count)
            return taken / count

        return rounds(5, one)


def manager_update(_):
    count = 1_000
    with Manager() as manager:
        shared = manager.dict()

        def one():
            shared.clear()
            taken, _ = seconds(lambda: shared.update([(number, number) for number in range(count)]))
            check(len(shared), count)
            return taken / count

        return rounds(15, one)


def manager_start(_):
    def one():
        def work():
            with Manager():
                pass

        return seconds(work)[0]

    return rounds(15, one)


WORKS = {
    "call": call,
    "call_apart": call_apart,
    "few_calls": few_calls,
    "outstanding": outstanding,
    "map": map_trivial,
    "burn": burn_evenly,
    "mixed_map": mixed_map,
    "mixed_submits": mixed_submits,
    "recycle": recycle,
    "argument": argument,
    "result": result,
    "memory": memory,
    "death": death,
    "lock": lock,
    "contended_lock": contended_lock,
    "semaphores": semaphores,
    "events": events,
    "conditions": conditions,
    "shared_memory": shared_memory,
    "queue_of_numbers": queue_of_numbers,
    "queue_of_blocks": queue_of_blocks,
    "pipe_of_numbers": pipe_of_numbers,
    "pipe_of_bytes": pipe_of_bytes,
    "manager_call": manager_call,
    "manager_call_apart": manager_call_apart,
    "manager_insert": manager_insert,
    "manager_update": manager_update,
    "manager_start": manager_start,
}


def give_up(*_):
    """A pool that hangs ends with all of its processes: our group is our own."""
    os.killpg(0, signal.SIGKILL)


def main():
    _, kind, work = sys.argv
    if os.getpgrp() == os.getpid():
        signal.signal(signal.SIGALRM, give_up)
        signal.alarm(AT_THE_LONGEST)
    answer = WORKS[work]({"pool": Pool, "executor": Executor, "process": Process}[kind])
    print(json.dumps({"absent": answer} if isinstance(answer, str) else {"rounds": answer}))


if __name__ == "__main__":
    main()
