"""Drives LevelDB (through plyvel) for the tests, in a process of its own: real locks, real crashes.

    python -m tests.plyvel_tool COMMAND [options] DIR

Speaks the language described in golevel/main.go, which does the same for goleveldb. Its commands
and its own ones (`recover` is LevelDB's repair, then open):

    open, recover, dump, compact, fill, write-sync, hold, run; repair, destroy: {"ok"}
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import closing

import plyvel

from tests.workload import Fill

LevelDBError = (plyvel.Error, OSError)


def say(**answer: object) -> None:
    """One answer, out at once: nothing sits in a buffer when the process is killed."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def refuse(error: BaseException) -> None:
    say(error=f"{type(error).__name__}: {error}")


def usage(text: str) -> SystemExit:
    print("plyvel_tool:", text, file=sys.stderr)
    return SystemExit(2)


def read(
    database: plyvel.DB,
    each: Callable[[bytes, bytes], None] | None = None,
    begun: plyvel.Iterator | None = None,
) -> dict[str, object]:
    """Every key in order, as an iterator sees it that was perhaps begun before.

    Stops where the engine stops and says why.
    """
    total, keys, problem = hashlib.sha256(), 0, ""
    try:
        with begun or database.iterator() as iterator:
            iterator.seek_to_start()
            for key, value in iterator:
                total.update(f"{key.hex()} {value.hex()}\n".encode())
                if each is not None:
                    each(key, value)
                keys += 1
    except LevelDBError as error:
        problem = f"{type(error).__name__}: {error}"
    return {"keys": keys, "sha256": total.hexdigest(), "iter_error": problem}


class Tool:
    """The commands; `given` are the parsed arguments."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.directory: str = given.directory
        self.options: dict[str, object] = {
            "write_buffer_size": given.write_buffer,
            "max_file_size": given.table_size,
            "block_size": given.block_size,
            "compression": None if given.compression == "none" else given.compression,
        }
        self.fill_of = Fill(given.count, given.start, given.value_size, given.seed)

    def database(self) -> plyvel.DB:
        return plyvel.DB(self.directory, create_if_missing=self.given.create, **self.options)

    def open(self) -> None:
        with closing(self.database()) as database:
            content = read(database)
        say(**content)

    def dump(self) -> None:
        with closing(self.database()) as database:
            content = read(database, lambda key, value: say(key=key.hex(), value=value.hex()))
        say(**content)

    def repair(self) -> None:
        plyvel.repair_db(self.directory, **self.options)
        say(ok=True)

    def destroy(self) -> None:
        plyvel.destroy_db(self.directory)
        say(ok=True)

    def recover(self) -> None:
        plyvel.repair_db(self.directory, **self.options)
        self.open()

    def compact(self) -> None:
        with closing(self.database()) as database:
            database.compact_range()
            content = read(database)
        say(**content)

    def fill(self) -> None:
        items = list(self.fill_of.items())
        size: int = self.given.batch
        with closing(self.database()) as database:
            for first in range(0, len(items), size):
                with database.write_batch(sync=self.given.sync) as batch:
                    for key, value in items[first : first + size]:
                        batch.put(key, value)
        say(written=len(items))

    def write_sync(self) -> None:
        with closing(self.database()) as database:
            for key, value in self.fill_of.items():
                database.put(key, value, sync=True)
                say(acked=key.hex())
        say(written=self.fill_of.count)

    def hold(self) -> None:
        with closing(self.database()):
            say(held=True)
            sys.stdin.read()
        say(closed=True)

    def run(self) -> None:
        script = Script(self.database)
        say(held=True)
        while (words := script.line()) is not None:
            try:
                script.obey(words)
            except (*LevelDBError, RuntimeError) as error:  # RuntimeError: the database is closed
                refuse(error)
        script.database.close()
        say(closed=True)


class Later(threading.Thread):
    """A write in a thread of its own."""

    def __init__(self, batch: plyvel.WriteBatch) -> None:
        super().__init__(daemon=True)
        self.batch = batch
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.batch.write()
        except LevelDBError as error:
            self.error = error


class Script:
    """Obeys the lines of its input."""

    def __init__(self, opener: Callable[[], plyvel.DB]) -> None:
        self.opener = opener
        self.database = opener()
        self.begun: plyvel.Iterator | None = None
        self.later: Later | None = None

    def line(self) -> list[str] | None:
        text = sys.stdin.readline()
        if text and not text.strip():
            raise usage("empty line in the script")
        return text.split() if text else None

    def obey(self, words: list[str]) -> None:
        match words:
            case ["put" | "del", *_]:
                self.change(1, durable=words[-1] == "sync", first=words).write()
                say(ok=True)
            case ["batch", count, *rest]:
                self.change(int(count), durable=rest == ["sync"]).write()
                say(ok=True)
            case ["later", "put", *_] if self.later is None:
                self.later = Later(self.change(1, durable=words[-1] == "sync", first=words[1:]))
                say(ok=True)
            case ["result"] if self.later is not None:
                done, self.later = self.later, None
                done.join()
                if done.error is not None:
                    raise done.error
                say(ok=True)
            case ["get", key]:
                value = self.database.get(unhex(key))
                say(found=value is not None, **({} if value is None else {"value": value.hex()}))
            case ["digest"]:
                say(**read(self.database))
            case ["compact"]:
                self.database.compact_range()
                say(ok=True)
            case ["begin"]:
                self.begun = self.database.iterator()
                next(self.begun, None)
                say(ok=True)
            case ["rest"]:
                if self.begun is None:
                    raise usage("rest without begin")
                say(**read(self.database, begun=self.begun))
                self.begun = None
            case ["close"]:
                self.database.close()
                say(ok=True)
            case ["reopen"]:
                self.database.close()
                self.database = self.opener()
                say(ok=True)
            case _:
                raise usage(f"unknown line in the script: {words}")

    def change(
        self, count: int, *, durable: bool, first: list[str] | None = None
    ) -> plyvel.WriteBatch:
        lines = [first or self.line() for _ in range(count)]
        batch = self.database.write_batch(sync=durable)
        for words in lines:
            match words:
                case ["put", key, value] | ["put", key, value, "sync"]:
                    batch.put(unhex(key), unhex(value))
                case ["del", key] | ["del", key, "sync"]:
                    batch.delete(unhex(key))
                case _:
                    raise usage(f"neither put KEY VALUE nor del KEY: {words}")
        return batch


COMMANDS: dict[str, Callable[[Tool], None]] = {
    "open": Tool.open,
    "recover": Tool.recover,
    "dump": Tool.dump,
    "compact": Tool.compact,
    "fill": Tool.fill,
    "write-sync": Tool.write_sync,
    "hold": Tool.hold,
    "run": Tool.run,
    "repair": Tool.repair,
    "destroy": Tool.destroy,
}


def unhex(word: str) -> bytes:
    return b"" if word == "-" else bytes.fromhex(word)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="plyvel_tool", allow_abbrev=False)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--create", action="store_true")
    parser.add_argument("--compression", choices=("snappy", "none"), default="snappy")
    parser.add_argument("--write-buffer", type=int)
    parser.add_argument("--table-size", type=int)
    parser.add_argument("--block-size", type=int)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--value-size", type=int, default=100)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seed", default="")
    parser.add_argument("--sync", action="store_true")
    parser.add_argument("directory")
    return parser.parse_args(arguments)


def main() -> None:
    given = parse(sys.argv[1:])
    try:
        COMMANDS[given.command](Tool(given))
    except LevelDBError as error:
        refuse(error)


if __name__ == "__main__":
    main()
