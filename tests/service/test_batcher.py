"""The queue: every result reaches its request, limits hold, turns are fair, and nothing remains of
a cancelled request.

The model is a stand-in in which every character is a token and eight of them fill a window.
"""

import asyncio
import threading
import time

import numpy as np
import pytest

from jaxclf.service import batcher
from jaxclf.service.batcher import BatchModel, Queue, QueueFullError, TooLargeError
from jaxclf.text.packing import plan
from jaxclf.types import Shape, Tokens

SHAPE = Shape(rows=4, length=8, slots=6)
CAPACITY = SHAPE.rows * SHAPE.length


def count_tokens(texts):
    return [[len(text[at : at + 8]) for at in range(0, len(text), 8)] for text in texts]


class Panic(BaseException):
    """As a tokenizer written in Rust raises it."""


def make_queue(max_tokens=10**6, predict=None, count_tokens=count_tokens):
    """A queue, the texts of every batch, and the statistics of every batch."""
    batches, stats = [], []

    def reverse(texts):
        batches.append(list(texts))
        time.sleep(0.001)
        return [text[::-1] for text in texts]

    model = BatchModel(SHAPE, 32, count_tokens, predict or reverse)
    return Queue(model, max_tokens, stats.append), batches, stats


def run(queue, scenario):
    """Play a scenario while the worker runs; nothing of it may remain in the queue."""

    async def play():
        worker = asyncio.create_task(batcher.run_forever(queue))
        try:
            await asyncio.wait_for(scenario, 20)
            assert not worker.done()
        finally:
            worker.cancel()
            batcher.close(queue)

    asyncio.run(play())
    assert queue.tokens == 0
    assert not queue.waiting


async def ask(queue, *texts):
    with batcher.reserve(queue, texts, batcher.estimate_tokens(queue, texts)) as ticket:
        return await batcher.get_results(queue, ticket)


def count_batches(texts):
    windows = count_tokens(texts)
    lengths = [length for text in windows for length in text]
    tokens = Tokens(
        np.zeros(sum(lengths), np.int32),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
        np.repeat(np.arange(len(texts)), [len(text) for text in windows]).astype(np.int32),
    )
    return len(list(plan(tokens, range(len(texts)), SHAPE)))


def test_every_result_belongs_to_its_text_and_every_batch_fits():
    queue, batches, stats = make_queue()
    rng = np.random.default_rng(0)
    requests = [
        ["".join(rng.choice(list("abcdefgh"), rng.integers(1, 33))) for _ in range(count)]
        for count in rng.integers(1, 9, size=60)
    ]

    async def ask_once(texts):
        await asyncio.sleep(rng.uniform(0, 0.05))
        assert await ask(queue, *texts) == [text[::-1] for text in texts]

    async def ask_all():
        await asyncio.gather(*map(ask_once, requests))

    run(queue, ask_all())
    assert all(count_batches(batch) == 1 for batch in batches)
    texts = [text for texts in requests for text in texts]
    assert sorted(text for batch in batches for text in batch) == sorted(texts)
    assert sum(batch.tokens for batch in stats) == sum(map(len, texts))
    # A text fills about half a row.
    assert np.mean([batch.packing_efficiency for batch in stats[:-2]]) > 0.8
    assert all(batch.packing_efficiency == batch.tokens / CAPACITY for batch in stats)


def test_a_request_without_room_is_refused_at_once_with_the_time_to_retry():
    release, seen = threading.Event(), []
    queue, _, _ = make_queue(30, lambda texts: (seen.extend(texts), release.wait(10), texts)[2])

    async def scenario():
        queue.seconds = 100.0
        running = asyncio.create_task(ask(queue, "a" * 30))
        while not seen:
            await asyncio.sleep(0.001)
        waiting = asyncio.create_task(ask(queue, "b" * 24))
        await asyncio.sleep(0.05)
        assert queue.tokens == 24  # a batch that runs is not counted
        with pytest.raises(QueueFullError) as caught:
            await ask(queue, "c" * 21)  # estimated at 9 tokens
        assert caught.value.retry_after == 75  # 24 / 32 of a batch's 100 s
        assert queue.tokens == 24
        with pytest.raises(QueueFullError):
            await ask(queue, "c" * 9)  # estimated at 5 tokens, which fit; it has 9
        assert queue.tokens == 24
        small = asyncio.create_task(ask(queue, "d" * 6))
        await asyncio.sleep(0.05)
        assert queue.tokens == 30
        release.set()
        assert await asyncio.gather(running, waiting, small) == [["a" * 30], ["b" * 24], ["d" * 6]]

    run(queue, scenario())


def test_a_request_above_the_queues_limit_is_too_large():
    queue, _, _ = make_queue(max_tokens=40)

    async def scenario():
        with pytest.raises(TooLargeError):
            await ask(queue, *["a" * 32] * 5)  # estimated at 12 tokens each
        with pytest.raises(TooLargeError):
            await ask(queue, *["a" * 32] * 2)  # estimated at 24, they have 64
        assert await ask(queue, "a" * 32) == ["a" * 32]

    run(queue, scenario())


def test_a_large_request_does_not_starve_a_small_one():
    queue, batches, _ = make_queue()

    async def scenario():
        many = asyncio.create_task(ask(queue, *["m" * 8] * 60))
        while not batches:
            await asyncio.sleep(0)
        before = len(batches)
        assert await ask(queue, "few") == ["wef"]
        assert not many.done()
        (position,) = [index for index, batch in enumerate(batches) if "few" in batch]
        assert position - before <= 2  # of fifteen
        await many

    run(queue, scenario())


def test_large_requests_take_turns():
    queue, batches, _ = make_queue()

    async def scenario():
        many = [asyncio.create_task(ask(queue, *[name * 8] * 20)) for name in "abcdefgh"]
        while not batches:
            await asyncio.sleep(0)
        before = len(batches)
        # Four texts fit a batch: each of the eight requests has had a turn after two.
        assert await ask(queue, "few") == ["wef"]
        assert len(batches) - before <= 4
        assert not any(task.done() for task in many)
        await asyncio.gather(*many)

    run(queue, scenario())


def test_the_longest_text_does_not_starve():
    queue, batches, _ = make_queue()

    async def scenario():
        async def keep_asking():
            while not long.done():
                await ask(queue, "short")

        tasks = [asyncio.create_task(keep_asking()) for _ in range(20)]
        await asyncio.sleep(0.01)
        before = len(batches)
        await long
        assert len(batches) - before < 12
        await asyncio.gather(*tasks)

    async def with_long():
        nonlocal long
        long = asyncio.create_task(ask(queue, "l" * 32))
        await scenario()

    long: asyncio.Task
    run(queue, with_long())


def test_a_request_that_is_cancelled_leaves_no_text_behind():
    release = threading.Event()
    queue, _, _ = make_queue(predict=lambda texts: (seen.extend(texts), release.wait(10), texts)[2])
    seen: list[str] = []

    async def scenario():
        first = asyncio.create_task(ask(queue, "first"))
        while not seen:
            await asyncio.sleep(0.001)
        gone = asyncio.create_task(ask(queue, "gone", "too"))
        stays = asyncio.create_task(ask(queue, "stays"))
        await asyncio.sleep(0.05)
        assert queue.tokens == len("gone" + "too" + "stays")
        gone.cancel()
        await asyncio.sleep(0)
        assert queue.tokens == len("stays")
        first.cancel()  # its batch runs already
        release.set()
        assert await stays == ["stays"]
        assert seen == ["first", "stays"]

    run(queue, scenario())


def test_the_worker_outlives_cancelled_requests():
    queue, _, _ = make_queue()

    async def scenario():
        gone = asyncio.create_task(ask(queue, "gone"))
        while not queue.waiting:
            await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(4 * batcher.GATHER_SECONDS)
        assert await ask(queue, "next") == ["txen"]

    run(queue, scenario())


@pytest.mark.parametrize("error", [ValueError, Panic])
def test_a_failure_ends_its_batch_alone(error):
    def predict(texts):
        if "bad" in texts:
            raise error
        return texts

    queue, _, stats = make_queue(predict=predict)

    async def scenario():
        with pytest.raises(error):
            await ask(queue, "bad", *["m" * 8] * 9)
        with pytest.raises(error):
            await ask(queue, "bad")
        assert await ask(queue, "good") == ["good"]
        assert [batch.texts for batch in stats][-1:] == [1]

    run(queue, scenario())


def test_a_text_that_cannot_be_tokenized_ends_its_request_alone():
    def panics(texts):
        if "bad" in texts:
            raise Panic
        return count_tokens(texts)

    queue, _, _ = make_queue(count_tokens=panics)

    async def scenario():
        good = asyncio.create_task(ask(queue, "good"))
        with pytest.raises(Panic):
            await ask(queue, "bad")
        assert await good == ["doog"]

    run(queue, scenario())


def test_concurrent_requests_share_a_batch():
    queue, batches, _ = make_queue()

    async def scenario():
        await asyncio.gather(*(ask(queue, text) for text in ("a", "b", "c")))

    run(queue, scenario())
    assert sorted(map(sorted, batches)) == [["a", "b", "c"]]
