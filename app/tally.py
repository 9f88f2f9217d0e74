"""What has happened in one request so far, and what is said of it at its end. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from app.errors import Cancelled, GatewayError
from app.records import Answered
from app.steps import Step
from app.types import Artefact, Attempt, Caller, Failure, Outcome, Plan, Receipt


@dataclass(slots=True)
class Tally:
    """Grows with each job that ends."""

    made: list[Artefact] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    cost: Decimal | None = Decimal(0)  # of what was made; None = not known
    seeds: dict[int, int] = field(default_factory=dict)  # by the first picture of the call
    steps: Sequence[Step] = ()  # how long what took; grows as well

    def charge(self, cost: Decimal | None) -> None:
        """A job was done: it costs, whatever becomes of its pictures."""
        self.cost = None if self.cost is None or cost is None else self.cost + cost

    def add(self, event: Artefact | Failure) -> None:
        """A picture, or why there is none."""
        if isinstance(event, Artefact):
            self.made.append(event)
        else:
            self.failed.append(event)

    @property
    def uncertain(self) -> bool:
        """Whether a job that brought nothing may have been billed all the same."""
        return any(attempt.charged is None for attempt in self.attempts)

    def error(self, currency: str) -> GatewayError:
        """What the caller is told when not one picture was made: the first failure, but never one that invites a
        repeat when another says that money is at stake; and what it cost."""
        error = min(self.failed, key=lambda failure: (failure.error.should_retry is not False, failure.index)).error
        return self.told(error, currency)

    def told(self, error: GatewayError, currency: str) -> GatewayError:
        """An error that says what the request cost."""
        error.cost = None if self.uncertain else self.cost
        if error.tells_charge:
            end = "" if error.message.endswith((".", "!", "?", "…")) else "."  # a provider's words may have none
            error.message = f"{error.message}{end} {self._charge(currency)}"
        return error

    def _charge(self, currency: str) -> str:
        if self.uncertain:
            return "It is not known whether the provider charged for it."
        if self.cost is None:
            return "It was charged."
        return f"It was charged: {self.cost.normalize():f} {currency}." if self.cost else "Nothing was charged."

    def may_be_forgotten(self, error: BaseException | None) -> bool:
        """Whether a repeat should be a new try: it failed, nothing was bought, and another time it may go well."""
        retriable = isinstance(error, GatewayError) and error.should_retry is not False
        return retriable and not self.made and not self.uncertain and self.cost == 0

    def receipt(
        self, id: str, caller: Caller, plan: Plan, currency: str, seconds: float, error: BaseException | None
    ) -> Receipt:
        """What happened."""
        code = error.code if isinstance(error, GatewayError) else None
        if error is None:
            status = "partial" if self.failed else "completed"
        elif isinstance(error, Cancelled):
            status = "cancelled"
        else:
            status, code = "failed", code or "internal_error"
        return Receipt(
            request_id=id,
            caller=caller,
            model=plan.model,
            provider=plan.offer.provider,
            endpoint=plan.offer.endpoint,
            status=status,  # type: ignore[arg-type]
            cost=self.cost,
            currency=currency,
            pictures=len(self.made),
            attempts=tuple(self.attempts),
            notes=plan.notes,
            failures=tuple(sorted(self.failed, key=lambda failure: failure.index)),
            uncertain=self.uncertain,
            error_code=code,
            seconds=seconds,
            steps=tuple(self.steps),
        )

    def answered(self, receipt: Receipt, provider_label: str, created: int, error: GatewayError | None) -> Answered:
        """What the journal keeps of it."""
        return Answered(
            status=receipt.status,
            created=created,
            provider_label=provider_label,
            cost=self.cost,
            uncertain=self.uncertain,
            seeds=tuple(seed for _, seed in sorted(self.seeds.items())),
            seconds=receipt.seconds,
            artefacts=tuple(sorted(self.made, key=lambda artefact: artefact.index)),
            failures=receipt.failures,
            error=error,
            attempts=receipt.attempts,
        )


def outcome(receipt: Receipt, answer: Answered) -> Outcome:
    """The success that an answer tells of."""
    return Outcome(answer.provider_label, answer.artefacts, receipt, answer.seeds, answer.created)
