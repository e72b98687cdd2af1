"""The queue: whose answer is whose, what is refused, who is next, and what remains of who has gone.

The model is a stand-in in which every character is a token, eight of them to a window.
"""

import asyncio
import threading
import time

import numpy as np
import pytest

from jaxclf.service import batcher
from jaxclf.service.batcher import Model, Queue, QueueFullError, TooLargeError
from jaxclf.text.packing import plan
from jaxclf.types import Shape, Tokens

SHAPE = Shape(rows=4, length=8, slots=6)
PLACES = SHAPE.rows * SHAPE.length


def cut(texts):
    return [[len(text[at : at + 8]) for at in range(0, len(text), 8)] for text in texts]


class Panic(BaseException):
    """As a tokenizer written in Rust raises it."""


def make_queue(bound=10**6, answer=None, cut=cut):
    """A queue, the texts of every batch, and what was told of it."""
    batches, told = [], []

    def each(texts):
        batches.append(list(texts))
        time.sleep(0.001)
        return [text[::-1] for text in texts]

    queue = Queue(Model(SHAPE, 32, cut, answer or each), bound, told.append)
    return queue, batches, told


def run(queue, scenario):
    """Play a scenario while the worker works; nothing may be left of it."""

    async def play():
        worker = asyncio.create_task(batcher.work(queue))
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
    with batcher.reserve(queue, texts, batcher.expected_tokens(queue, texts)) as own:
        return await batcher.answers(queue, own)


def fits(texts):
    """Whether they are one batch."""
    windows = cut(texts)
    lengths = [length for text in windows for length in text]
    owners = np.repeat(np.arange(len(texts)), [len(text) for text in windows])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    tokens = Tokens(np.zeros(sum(lengths), np.int32), starts.astype(np.int32), owners)
    return len(
        list(plan(tokens._replace(owners=owners.astype(np.int32)), range(len(texts)), SHAPE))
    )


def test_every_answer_belongs_to_its_text_and_every_batch_is_one():
    queue, batches, told = make_queue()
    rng = np.random.default_rng(0)
    asked = [
        ["".join(rng.choice(list("abcdefgh"), rng.integers(1, 33))) for _ in range(count)]
        for count in rng.integers(1, 9, size=60)
    ]

    async def one(texts):
        await asyncio.sleep(rng.uniform(0, 0.05))
        assert await ask(queue, *texts) == [text[::-1] for text in texts]

    async def all_at_once():
        await asyncio.gather(*map(one, asked))

    run(queue, all_at_once())
    assert all(fits(batch) == 1 for batch in batches)
    texts = [text for texts in asked for text in texts]
    assert sorted(text for batch in batches for text in batch) == sorted(texts)
    assert sum(step.tokens for step in told) == sum(map(len, texts))
    # Texts fill 55 % on average, so first-fit of so many should do well.
    assert np.mean([step.fill for step in told[:-2]]) > 0.8
    assert all(step.fill == step.tokens / PLACES for step in told)


def test_what_has_no_room_is_refused_at_once_and_told_when_to_come_again():
    held, seen = threading.Event(), []
    queue, _, _ = make_queue(30, lambda texts: (seen.extend(texts), held.wait(10), texts)[2])

    async def scenario():
        queue.seconds = 100.0
        running = asyncio.create_task(ask(queue, "a" * 30))
        while not seen:
            await asyncio.sleep(0.001)
        waiting = asyncio.create_task(ask(queue, "b" * 24))
        await asyncio.sleep(0.05)
        assert queue.tokens == 24  # what runs waits no more
        began = time.perf_counter()
        with pytest.raises(QueueFullError) as caught:
            await ask(queue, "c" * 21)  # by its size 9 tokens
        assert time.perf_counter() - began < 0.05
        assert caught.value.seconds == 75  # 24 / 32 of a batch's 100 s
        assert queue.tokens == 24
        with pytest.raises(QueueFullError):
            await ask(queue, "c" * 9)  # by its size 5 tokens, which fit, and 9 when cut
        assert queue.tokens == 24
        small = asyncio.create_task(ask(queue, "d" * 6))
        await asyncio.sleep(0.05)
        assert queue.tokens == 30
        held.set()
        assert await asyncio.gather(running, waiting, small) == [["a" * 30], ["b" * 24], ["d" * 6]]

    run(queue, scenario())


def test_more_than_the_queue_ever_holds_is_too_large():
    queue, _, _ = make_queue(bound=40)

    async def scenario():
        with pytest.raises(TooLargeError):
            await ask(queue, *["a" * 32] * 5)  # by their size: 12 tokens each
        with pytest.raises(TooLargeError):
            await ask(queue, *["a" * 32] * 2)  # 24 by their size, 64 when cut
        assert await ask(queue, "a" * 32) == ["a" * 32]

    run(queue, scenario())


def test_a_request_with_many_texts_does_not_hold_up_one_with_few():
    queue, batches, _ = make_queue()

    async def scenario():
        many = asyncio.create_task(ask(queue, *["m" * 8] * 60))
        while not batches:
            await asyncio.sleep(0)
        before = len(batches)
        assert await ask(queue, "few") == ["wef"]
        assert not many.done()
        (place,) = [index for index, batch in enumerate(batches) if "few" in batch]
        assert place - before <= 2  # of fifteen, however busy the machine is
        await many

    run(queue, scenario())


def test_many_requests_with_many_texts_take_turns():
    queue, batches, _ = make_queue()

    async def scenario():
        many = [asyncio.create_task(ask(queue, *[name * 8] * 20)) for name in "abcdefgh"]
        while not batches:
            await asyncio.sleep(0)
        before = len(batches)
        # Four texts fit a batch: all eight requests have had theirs after two.
        assert await ask(queue, "few") == ["wef"]
        assert len(batches) - before <= 4
        assert not any(one.done() for one in many)
        await asyncio.gather(*many)

    run(queue, scenario())


def test_the_longest_text_is_not_passed_over_for_ever():
    queue, batches, _ = make_queue()

    async def scenario():
        async def keep_asking():
            while not long.done():
                await ask(queue, "short")

        others = [asyncio.create_task(keep_asking()) for _ in range(20)]
        await asyncio.sleep(0.01)
        before = len(batches)
        await long
        assert len(batches) - before < 12
        await asyncio.gather(*others)

    async def with_long():
        nonlocal long
        long = asyncio.create_task(ask(queue, "l" * 32))
        await scenario()

    long: asyncio.Task
    run(queue, with_long())


def test_who_has_gone_leaves_no_text_behind():
    held = threading.Event()
    queue, _, _ = make_queue(answer=lambda texts: (seen.extend(texts), held.wait(10), texts)[2])
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
        first.cancel()  # its batch runs; its answer is for nobody
        held.set()
        assert await stays == ["stays"]
        assert seen == ["first", "stays"]

    run(queue, scenario())


def test_the_worker_outlives_those_it_gathered_for():
    queue, _, _ = make_queue()

    async def scenario():
        gone = asyncio.create_task(ask(queue, "gone"))
        while not queue.waiting:
            await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(4 * batcher.GATHER)
        assert await ask(queue, "next") == ["txen"]

    run(queue, scenario())


@pytest.mark.parametrize("error", [ValueError, Panic])
def test_a_fault_ends_its_batch_and_no_other(error):
    def answer(texts):
        if "bad" in texts:
            raise error
        return texts

    queue, _, told = make_queue(answer=answer)

    async def scenario():
        with pytest.raises(error):
            await ask(queue, "bad", *["m" * 8] * 9)
        with pytest.raises(error):
            await ask(queue, "bad")
        assert await ask(queue, "good") == ["good"]
        assert [step.texts for step in told][-1:] == [1]

    run(queue, scenario())


def test_a_text_that_cannot_be_cut_is_the_fault_of_its_request_alone():
    def panics(texts):
        if "bad" in texts:
            raise Panic
        return cut(texts)

    queue, _, _ = make_queue(cut=panics)

    async def scenario():
        good = asyncio.create_task(ask(queue, "good"))
        with pytest.raises(Panic):
            await ask(queue, "bad")
        assert await good == ["doog"]

    run(queue, scenario())


def test_those_who_come_together_share_a_batch():
    queue, batches, _ = make_queue()

    async def scenario():
        await asyncio.gather(*(ask(queue, text) for text in ("a", "b", "c")))

    run(queue, scenario())
    assert sorted(map(sorted, batches)) == [["a", "b", "c"]]
