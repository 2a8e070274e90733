"""The rows of a node's database as SQL for psql: all of them (`everything`), and an hour's changes (`hour`). Contents are
JSON as clients send it; hashes, addresses and signatures are random, as real ones look."""

import datetime
import json
import random
from pathlib import Path
from typing import IO

from cids import cid_v0

HERE = Path(__file__).resolve().parent
START = int(datetime.datetime(2026, 3, 1, tzinfo=datetime.timezone.utc).timestamp())
DAY = 86_400
CHANNELS = ["ALEPH-CLOUDSOLUTIONS", "TEST", "libertai", "nodestatus", "FOUNDATION", "SHELL"]
MESSAGES = (
    "item_hash, type, chain, sender, signature, item_type, item_content, content, time, channel, size, status, "
    "reception_time, owner, content_type, content_ref, content_key, content_item_hash, first_confirmed_at, "
    "first_confirmed_height, payment_type, tags"
)
PINS = "file_hash, created, type, tx_hash, owner, item_hash, ref, delete_by"
NULL = None


def stamp(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f+00")


def cell(value: object) -> str:
    if value is None:
        return "\\N"
    if isinstance(value, str):
        return value.replace("\\", "\\\\") if "\\" in value else value
    return str(value)


class Rows:
    def __init__(self, rng: random.Random, out: "IO[str]", hour: int):
        self.rng, self.out, self.hour_number = rng, out, hour
        # Users and words are the same in each hour.
        fixed = random.Random("users and words")
        self.addresses = ["0x" + fixed.randbytes(20).hex() for _ in range(4000)]
        self.words = ["".join(fixed.choices("aeioubcdfglmnprstv", k=fixed.randint(2, 10))) for _ in range(4000)]
        self.words += ["café", "naïve", "データ", "☃", 'a "word"', "back\\slash", "tab\there", "line\nbreak"]
        self.weights = []
        total = 0.0
        for i in range(len(self.words)):
            total += 1 / (i + 20)
            self.weights.append(total)
        self.txs: list[str] = []

    # ---------------------------------------------------------------------------------------------------- pieces

    def hash(self) -> str:
        return self.rng.randbytes(32).hex()

    def address(self) -> str:
        return self.addresses[int(self.rng.random() ** 3 * len(self.addresses))]

    def text(self, words: int) -> str:
        return " ".join(self.rng.choices(self.words, cum_weights=self.weights, k=words))

    def copy(self, table: str, rows: "list[list]") -> None:
        if rows:
            self.out.write(f"copy {table} from stdin;\n")
            self.out.writelines("\t".join(map(cell, row)) + "\n" for row in rows)
            self.out.write("\\.\n")

    def message(self, item: str, kind: str, content: dict, when: float, channel: str, **denormal: object) -> list:
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        inline = len(text) < 50_000 and not denormal.get("stored")
        confirmed = when + self.rng.randrange(60, 7200)
        return [
            item, kind, "ETH", content["address"], "0x" + self.rng.randbytes(65).hex(), "inline" if inline else "storage",
            text if inline else NULL, text, stamp(when), channel, len(text.encode()), "processed",
            stamp(when + self.rng.random() * 30), content["address"], denormal.get("type"), denormal.get("ref"), denormal.get("key"),
            denormal.get("item_hash"), stamp(confirmed), 15_000_000 + int(confirmed - START) // 12, denormal.get("payment"), denormal.get("tags"),
        ]

    def store(self, line: list) -> list:
        name, size, _, _, place, _, item, when = line
        ref = self.hash() if self.rng.random() < 0.1 else NULL
        content = {"address": self.address(), "time": when + self.rng.random(), "item_type": "storage" if place == "local" else "ipfs", "item_hash": name}
        if ref:
            content["ref"] = ref
        if self.rng.random() < 0.3:
            content["metadata"] = {"name": self.text(3), "size": size}
        return self.message(item, "STORE", content, when, self.rng.choice(CHANNELS), item_hash=name, ref=ref, payment="hold")

    def post(self, when: float) -> "tuple[list, list]":
        item, address, channel = self.hash(), self.address(), self.rng.choice(CHANNELS)
        kind = self.rng.choice(["blog", "corechan-operation", "aleph-network-metrics", "chat"])
        inner = {"title": self.text(6), "body": self.text(min(600, int(self.rng.lognormvariate(4.6, 0.7)))), "node": self.hash(), "score": self.rng.random()}
        content = {"address": address, "time": when, "type": kind, "content": inner}
        message = self.message(item, "POST", content, when, channel, type=kind)
        post = [item, address, kind, NULL, NULL, channel, json.dumps(inner, ensure_ascii=False), stamp(when), NULL, NULL]
        return message, post

    def content_message(self, line: list) -> "tuple[list, list]":
        """A message whose content is the file."""
        message, post = self.post(line[7])
        message[0] = post[0] = line[6]
        message[5], message[6] = "storage", NULL
        return message, post

    # ------------------------------------------------------------------------------------------------------ rows

    def chain_tx(self, when: float, archive: "str | None") -> list:
        tx = "0x" + self.hash()
        self.txs.append(tx)
        content = json.dumps(archive) if archive else json.dumps({"messages": [self.hash() for _ in range(3)]})
        protocol = "off-chain-sync" if archive else "on-chain-sync"
        return [tx, "ETH", 15_000_000 + int(when - START) // 12, stamp(when), self.address(), protocol, 1, content]

    def stored(self, lines: "list[list]") -> None:
        """All rows of files that were just stored."""
        messages, posts, status, files, pins, txs, confirmed = [], [], [], [], [], [], []
        for line in lines:
            name, size, kind, pinned, _, _, item, when = line
            if pinned == "no-row":
                continue
            files.append([name, size, kind])
            for pin in pinned.split("+"):
                owner = self.address()
                if pin == "message":
                    message = self.store(line)
                    messages.append(message)
                    pins.append([name, stamp(when), pin, NULL, message[3], item, message[15], NULL])
                elif pin == "content":
                    message, post = self.content_message(line)
                    messages.append(message)
                    posts.append(post)
                    pins.append([name, stamp(when), pin, NULL, message[3], item, NULL, NULL])
                elif pin == "tx":
                    tx = self.chain_tx(when, name)
                    txs.append(tx)
                    pins.append([name, stamp(when), pin, tx[0], NULL, NULL, NULL, NULL])
                elif pin == "grace_period":
                    pins.append([name, stamp(when), pin, NULL, owner, item if pinned == pin else self.hash(), NULL, stamp(START + self.rng.randrange(DAY))])
        for message in messages:
            status.append([message[0], "processed", message[12]])
            if self.txs:
                confirmed.append([message[0], self.rng.choice(self.txs)])
        self.copy("chain_txs", txs)
        self.copy(f"messages ({MESSAGES})", messages)
        self.copy("message_status", status)
        self.copy("message_confirmations (item_hash, tx_hash)", confirmed)
        self.copy("posts", posts)
        self.copy("files", files)
        self.copy(f"file_pins ({PINS})", pins)
        self.copy("file_tags", [[m[0], m[3], m[17], m[8]] for m in messages if m[1] == "STORE" and m[17] and self.rng.random() < 0.5])

    def posts(self, count: int, since: float, seconds: float) -> None:
        made = [self.post(since + self.rng.random() * seconds) for _ in range(count)]
        self.copy(f"messages ({MESSAGES})", [m for m, _ in made])
        self.copy("message_status", [[m[0], "processed", m[12]] for m, _ in made])
        self.copy("message_confirmations (item_hash, tx_hash)", [[m[0], self.rng.choice(self.txs)] for m, _ in made if self.txs])
        self.copy("posts", [p for _, p in made])

    def metrics(self, count: int, since: float) -> None:
        rows = [[stamp(since + i), self.hash(), self.hash(), round(self.rng.random(), 6), round(self.rng.random() * 9, 6)] for i in range(count)]
        self.copy("crn_metrics (measured_at, item_hash, node_id, base_latency, full_check_latency)", rows)
        rows = [[stamp(since + i * 40), self.hash(), self.hash(), i, round(self.rng.random() * 9, 6)] for i in range(max(10, count // 10))]
        self.copy("ccn_metrics (measured_at, item_hash, node_id, pending_messages, base_latency)", rows)

    def everything(self, lines: "list[list]", posts: int) -> None:
        self.out.write("begin;\n" + (HERE / "schema.sql").read_text())
        when = START - 600 * DAY
        self.copy("chain_txs", [self.chain_tx(when + i * 9000, NULL) for i in range(max(20, posts // 10))])
        self.stored(lines)
        self.posts(posts, when, 600 * DAY)
        self.aggregates(posts // 6, when)
        self.copy(
            "balances (address, chain, dapp, eth_height, balance, last_update)",
            [[a, chain, NULL, 15_000_000, f"{self.rng.random() * 1e5:.18f}", stamp(START)] for a in self.addresses for chain in ("ETH", "SOL", "AVAX")],
        )
        self.copy(
            "credit_balances",
            [[self.address(), self.hash(), i % 3, self.rng.randrange(10**9), NULL, stamp(when + i), stamp(START)] for i in range(posts // 5)],
        )
        self.metrics(posts, START - 30 * DAY)
        self.copy("peers", [[cid_v0(self.rng.randbytes(32)), k, f"/ip4/10.0.{i}.1/tcp/4025", "P2P", stamp(START)] for i in range(40) for k in ("HTTP", "P2P")])
        self.copy("alembic_version", [["f4b8a2d7c1e9"]])
        self.out.write(
            "insert into account_costs (owner, item_hash, type, name, payment_type, cost_hold, cost_stream) select sender, item_hash, 'STORAGE', "
            "'store', 'hold', size * 0.000333, 0 from messages where type = 'STORE' and right(item_hash, 1) in ('0', '1', '2');\n"
        )
        self.out.write((HERE / "constraints.sql").read_text() + "commit;\n")
        self.out.write("analyze;\n")

    def aggregates(self, count: int, when: float) -> None:
        messages, elements, compacted = [], [], {}
        for i in range(count):
            address, item, at = self.address(), self.hash(), when + i * (600 * DAY / count)
            key = self.rng.choice(["profile", "settings", "corechannel", "domains"])
            inner = {self.rng.choice(self.words[:200]): {"type": "x", "url": f"https://{self.text(1)}.example/", "hash": self.hash()} for _ in range(5)}
            messages.append(self.message(item, "AGGREGATE", {"address": address, "time": at, "key": key, "content": inner}, at, "ALEPH-CLOUDSOLUTIONS", key=key))
            elements.append([item, key, address, json.dumps(inner, ensure_ascii=False), stamp(at)])
            compacted[key, address] = [key, address, json.dumps(inner, ensure_ascii=False), stamp(at), item, "f"]
        self.copy(f"messages ({MESSAGES})", messages)
        self.copy("message_status", [[m[0], "processed", m[12]] for m in messages])
        self.copy("aggregate_elements", elements)
        self.copy("aggregates", list(compacted.values()))

    def hour(self, step: int, steps: int, now: float, made: "list[list]", collected: "list[list]", posts: int) -> None:
        """One transaction's part of an hour: 0.8 % of the rows are touched, 0.5 % new ones and 0.3 % updated."""
        self.out.write("begin;\n")
        self.stored(made)
        self.posts(max(1, posts // 200 // steps), now, 3600)
        self.metrics(max(1, posts // 200 // steps), now + step * 300)
        every = 333
        share = every * steps
        for table, key, change in (
            ("messages", "item_hash", f"first_confirmed_at = '{stamp(now)}', first_confirmed_height = {16_000_000 + self.hour_number}"),
            ("message_status", "item_hash", f"reception_time = '{stamp(now)}'"),
            ("posts", "item_hash", "latest_amend = md5(item_hash) || md5(item_hash)"),
            ("aggregates", "key || owner", "dirty = not dirty"),
            ("balances", "address || chain", f"balance = balance + 1.5, last_update = '{stamp(now)}'"),
            ("credit_balances", "credit_ref", f"amount_remaining = amount_remaining - 1000, last_update = '{stamp(now)}'"),
        ):
            # A row's turn comes once in so many hours.
            turn = (step * every + self.hour_number) % share
            self.out.write(f"update {table} set {change} where (hashtext({key}) & 2147483647) % {share} = {turn};\n")
        if collected:
            names = ",".join(f"'{line[0]}'" for line in collected)
            self.out.write(f"delete from file_pins where file_hash in ({names});\ndelete from files where hash in ({names});\n")
        self.out.write("commit;\n")
