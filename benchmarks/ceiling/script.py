"""Valkey alone with the shop's own script: batches of orders, pipelined, no server between."""

from __future__ import annotations

import base64
import itertools
import sys
import time
from typing import Any, Final

import hiredis
import msgspec

from benchmarks.ceiling.asks import HOT, Spec, buyer, key
from benchmarks.ceiling.driver import Done, cpu_ns
from benchmarks.ceiling.wire import Wire
from core.backends.valkey import ROOT
from core.ids import Names, fingerprint
from core.sale.orders.answers import PLACE_ANSWERS
from core.sale.orders.store import PLACE, PlaceItem, pack_places

BATCH: Final = 100  # orders in a call
DEPTH: Final = 4  # calls under way


def drive(spec: Spec, url: str) -> Done:
    """Place orders straight in Valkey for one window and return what was decided.

    Raises:
        OSError, ValueError: it did not accept every order.
    """
    names = Names(base64.b64decode(spec.secret))
    wire = Wire(url)
    epoch = wire.ask("HGET", f"{ROOT}:meta", "epoch")
    wire.ask("SCRIPT", "LOAD", PLACE.source)
    # The calls are made before the window: it is Valkey that is measured, and 60,000 a second is what this can make.
    calls = [_call(names, epoch, number) for number in range(spec.first, spec.first + spec.most, BATCH)]
    before = {name: cpu_ns(pids) for name, pids in spec.watch.items()}
    own, began = time.process_time(), time.monotonic()
    decided, coming = 0, iter(calls)
    for call in itertools.islice(coming, DEPTH):
        wire.send(call)
    for call in coming:
        decided += _accepted(wire.read())
        if time.monotonic() - began > spec.seconds:
            break
        wire.send(call)
    seconds = time.monotonic() - began
    share = (time.process_time() - own) / seconds
    after = {name: cpu_ns(pids) for name, pids in spec.watch.items()}
    wire.close()
    cpu_us = {name: (after[name] - before[name]) / 1000 for name in spec.watch}
    return Done(decided, seconds, {}, cpu_us, share, spec.first + spec.most)


def _call(names: Names, epoch: bytes, first: int) -> bytes:
    numbers = range(first, first + BATCH)
    kind = (HOT, fingerprint(HOT, 1), 1)
    items = [PlaceItem(names.order_id(buyer(number), key(number)), buyer(number), kind) for number in numbers]
    command: Any = ("EVALSHA", PLACE.sha, 1, ROOT, epoch, pack_places(items))
    return bytes(hiredis.pack_command(command))


def _accepted(reply: bytes) -> int:
    answers, said, _ = PLACE_ANSWERS.decode(reply)
    if [answer.outcome for answer in answers] != ["accepted"] or said != [1]:
        raise ValueError(f"orders were not accepted: {answers[:3]}")
    return BATCH


if __name__ == "__main__":
    done = drive(msgspec.json.decode(sys.argv[1], type=Spec), sys.argv[2])
    sys.stdout.write(msgspec.json.encode(done).decode() + "\n")
