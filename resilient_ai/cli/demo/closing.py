"""The end of the tour: its sums, and whether the server's books and ours agree."""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.table import Table

from resilient_ai.cli.demo.scene import Scene
from resilient_ai.cli.demo.stage import Outcome
from resilient_ai.cli.demo.traces import JsonLines
from resilient_ai.cli.terminal import counted, usd
from resilient_ai.core.ledger import LedgerRow, LedgerTotal


@dataclass
class Closing:
    """What the tour came to."""

    scene: Scene
    spans: JsonLines
    outcomes: list[Outcome] = field(default_factory=list[Outcome])
    models: list[LedgerRow] = field(default_factory=list[LedgerRow])
    total: LedgerTotal | None = None
    saved: Decimal | None = None
    differences: list[str] = field(default_factory=list[str])
    requests: int = 0
    bill: Decimal = Decimal(0)

    async def read_the_books(self) -> None:
        """Ask the ledger, and compare it with what the server counted, model by model."""
        scene = self.scene
        self.total = await scene.ledger.total(since=scene.started)
        self.saved = (await scene.ledger.saved(since=scene.started)).saved
        self.models = await scene.ledger.by("model", since=scene.started)
        if scene.simulator is None:
            return
        stats = scene.simulator.stats()
        self.requests, self.bill = stats.requests, stats.bill
        if self.requests != self.total.sends:
            self.differences.append(
                f"the server counted {counted(self.requests, 'request')}, the ledger {self.total.sends}"
            )
        ours = {str(row.key[0]): row.cost for row in self.models}
        for model in sorted({*ours, *stats.bill_by_model}):
            billed, cost = stats.bill_by_model.get(model, Decimal(0)), ours.get(model, Decimal(0))
            if (cost or Decimal(0)) != billed:
                says = "unknown" if cost is None else f"{cost:f}"
                self.differences.append(f"{model}: the server billed {billed:f}, the ledger says {says}")

    @property
    def all_well(self) -> bool:
        """Whether every step showed what it is there to show, and the books agree."""
        return not self.differences and all(outcome.ok for outcome in self.outcomes)

    def show(self, console: Console) -> None:
        """Show the sums, the costs and the verdict."""
        console.print()
        console.print(self._sums())
        console.print()
        console.print(self._costs())
        console.print()
        self._compare(console)
        console.print(
            f"[dim]spans[/dim]    {self.scene.output / 'trace.jsonl'} [dim]({self.spans.spans} OpenTelemetry spans)[/dim]\n"
            f"[dim]         `resilient-ai trace {self.scene.output / 'trace.jsonl'}` draws them[/dim]"
        )
        if self.scene.picture is not None:
            console.print(f"[dim]picture[/dim]  {self.scene.picture}")
        failed = [outcome.title for outcome in self.outcomes if not outcome.ok]
        if failed:
            console.print(
                f"[bold red]✗ {len(failed)} of {len(self.outcomes)} steps failed: {', '.join(failed)}[/bold red]"
            )

    def _sums(self) -> Table:
        tally = self.scene.tally
        opened, half, closed = tally.opened, tally.half_opened, tally.closed
        pairs = [
            ("Calls", f"{tally.calls:,}"),
            ("Requests sent", f"{tally.sends:,}"),
            ("Retries", f"{tally.retries:,}"),
            ("Cache hits", f"{tally.hits:,}"),
            ("Saved by cache and sharing", usd(self.saved)),
            ("Breaker went", f"opened {opened}, half-open {half}, closed {closed}"),
            ("Tokens in", f"{tally.input_tokens:,}"),
            ("Tokens out", f"{tally.output_tokens:,}"),
        ]
        table = Table.grid(padding=(0, 3, 0, 0))
        for (left, first), (right, second) in zip(pairs[::2], pairs[1::2], strict=True):
            table.add_row(
                f"[dim]{left}[/dim]", f"[bold]{first}[/bold]", f"[dim]{right}[/dim]", f"[bold]{second}[/bold]"
            )
        return table

    def _costs(self) -> Table:
        total = self.total
        rows: list[tuple[str, LedgerTotal]] = [
            (str(row.key[0]), row) for row in sorted(self.models, key=_dearest_first)
        ]
        rows += [] if total is None else [("Total", total)]
        # So many digits that every amount is exact and all of them stand below one another.
        known = [row.cost for _, row in rows if row.cost is not None]
        digits = max((-int(cost.normalize().as_tuple().exponent) for cost in known), default=0)
        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 3, 0, 0))
        table.add_column("Cost by model")
        for name in ("Requests", "Tokens in", "Tokens out", "US dollars"):
            table.add_column(name, justify="right")
        for name, row in rows:
            paid = "" if row.cost is None else f"{row.cost:.{max(digits, 2)}f}"
            cost = " + ".join(part for part in (paid, f"{row.unknown} unknown" if row.unknown else "") if part)
            cells = (name, f"{row.sends:,}", f"{row.input_tokens:,}", f"{row.output_tokens:,}", cost)
            table.add_row(*cells, style="bold" if row is total else "")
        return table

    def _compare(self, console: Console) -> None:
        if self.scene.simulator is None:
            return
        if not self.differences:
            console.print(
                f"[green]✓[/green] the server counted [bold]{counted(self.requests, 'request')}[/bold] and billed "
                f"[bold]${self.bill.normalize():f}[/bold]; the ledger says the same, model by model"
            )
        for difference in self.differences:
            console.print(f"[bold red]✗[/bold red] the books differ: {difference}")

    def document(self) -> dict[str, Any]:
        """Return everything for JSON."""
        scene, tally = self.scene, self.scene.tally
        steps = [{"title": o.title, "ok": o.ok, "fact": o.fact, "elapsed": o.elapsed} for o in self.outcomes]
        rows = [
            {"model": row.key[0], "requests": row.sends, "cost": row.cost, "unknown": row.unknown}
            for row in self.models
        ]
        server = None if scene.simulator is None else {"requests": self.requests, "bill": self.bill}
        return {
            "ok": self.all_well,
            "steps": steps,
            "calls": tally.calls,
            "requests": tally.sends,
            "retries": tally.retries,
            "cache_hits": tally.hits,
            "saved": self.saved,
            "breaker": {"opened": tally.opened, "half_opened": tally.half_opened, "closed": tally.closed},
            "input_tokens": tally.input_tokens,
            "output_tokens": tally.output_tokens,
            "by_model": rows,
            "server": server,
            "differences": self.differences,
            "trace": str(scene.output / "trace.jsonl"),
            "picture": None if scene.picture is None else str(scene.picture),
        }


def _dearest_first(row: LedgerRow) -> tuple[Decimal, str]:
    return -(row.cost or Decimal(0)), str(row.key[0])
