"""What `doctor` says of a set-up, without a process."""

from support.cli import World
from support.leaks import leaked
from vault_plugin.doctor.examination import Examination
from vault_plugin.doctor.verdicts import Level, Verdict, exit_code
from vault_plugin.settings.declarations import survey_all


class Diagnosis:
    """What the doctor said of an environment."""

    def __init__(self, world: World, write_test: bool = False, /, **environ: str | None) -> None:
        given = world.environ | {"KLEARSTACK_TIMEOUT": "5", "KLEARSTACK_DEADLINE": "20"} | environ
        survey = survey_all({name: text for name, text in given.items() if text is not None})
        self.verdicts = list(Examination(survey, write_test=write_test).verdicts())
        self.code = exit_code(self.verdicts)
        assert world.endpoint.mints == 0
        assert leaked(world, world.endpoint, self.text) == []

    @property
    def text(self) -> str:
        return "\n".join(verdict.line for verdict in self.verdicts)

    def of(self, *levels: Level) -> list[Verdict]:
        return [verdict for verdict in self.verdicts if verdict.level in levels]

    def names(self, check: str, said: str, remedy: str, code: int) -> None:
        """Assert that this is all that is wrong."""
        (culprit,) = self.of(Level.FAILED)
        assert culprit.check == check, self.text
        assert said in culprit.line, culprit.line
        assert remedy in culprit.line, culprit.line
        assert self.code == code

    def warns(self, check: str, said: str) -> None:
        """Assert that this is the only warning, and nothing failed."""
        (culprit,) = self.of(Level.FAILED, Level.WARNING)
        assert (culprit.level, culprit.check, self.code) == (Level.WARNING, check, 0), self.text
        assert said in culprit.line

    def skips(self) -> list[str]:
        return [verdict.check for verdict in self.of(Level.SKIPPED)]
