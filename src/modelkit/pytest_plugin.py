"""`pytest --modelkit manifests/`: collect, call, report.

This module is imported by every pytest run of the environment, so nothing heavy stands at its top, and without the flag
(or the ini setting `modelkit = true`) nothing below is ever called.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from modelkit.conformance import Examination
    from modelkit.pipeline import Pins
    from modelkit.store import Store
    from modelkit.vocabulary import Manifest, Variant, Verdict

SUFFIXES = {".yaml", ".yml"}
PROPERTY = "modelkit"
"""Under this name a test's `user_properties`, and so its JUnit element, carry the whole record as JSON."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("modelkit", "models described in manifests")
    group.addoption("--modelkit", action="store_true", help="Collect manifests: build, check and report their models.")
    group.addoption("--modelkit-drafts", action="store_true", help="Build manifests that have no lock, too.")
    group.addoption("--modelkit-offline", action="store_true", help="Never use the network; fail if it is needed.")
    group.addoption("--modelkit-force", action="store_true", help="Build again and compare with what is stored.")
    group.addoption(
        "--modelkit-profile",
        choices=("quick", "full", "release"),
        default="quick",
        help="How much is checked; each profile runs the checks of those before it, too. Default: quick.",
    )
    group.addoption(
        "--modelkit-examples",
        type=_count,
        metavar="N",
        help="How many examples a check that searches tries; default: what it takes for the profile.",
    )
    group.addoption(
        "--modelkit-prove",
        action="store_true",
        help="Prove the checks, too: damage copies of each artifact, and see whether they notice.",
    )
    group.addoption("--modelkit-build", metavar="DIR", help="Where finished folders go; default: build/ in rootdir.")
    parser.addini("modelkit", "Collect manifests without the flag.", type="bool", default=False)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got '{text}'")
    return int(text)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "modelkit(model, variant, check, task, channel): one check of one artifact, set by modelkit"
    )
    if config.getoption("modelkit") or config.getini("modelkit"):
        config.pluginmanager.register(Run(config), "modelkit-run")


class Run:
    """Everything one pytest run knows about its manifests."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.root = _shown(Path(config.getoption("modelkit_build") or config.rootpath / "build"))
        self.records: list[dict[str, Any]] = []
        self.trouble: list[str] = []
        """Why a run without a failed test is not green all the same."""
        self.owners: dict[Path, Manifest] = {}
        self._store: Store | None = None
        self._pins: Pins | None = None

    @property
    def store(self) -> Store:
        """Opened when the first build asks for it; collection never does."""
        from modelkit.store import Store  # noqa: PLC0415

        self._store = self._store or Store()
        return self._store

    @property
    def pins(self) -> Pins:
        """What drafts resolved to in this run."""
        from modelkit.pipeline import Pins  # noqa: PLC0415

        self._pins = self._pins or Pins(self.store)
        return self._pins

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        if file_path.suffix not in SUFFIXES or not self._is_meant(file_path):
            return None
        return ManifestFile.from_parent(parent, path=file_path, run=self)

    def _is_meant(self, path: Path) -> bool:
        """With the flag every YAML file in reach is. The ini setting means those that look like manifests, so that a
        stray settings file does not stop an ordinary run."""
        if self.config.getoption("modelkit") or "manifests" in path.parent.parts:
            return True
        text = path.read_text(encoding="utf-8", errors="replace")
        return sum(f"\n{key}:" in f"\n{text}" for key in ("name", "task", "source", "variants")) >= 2

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # Each phase's report carries the properties again; a verdict belongs to the phase that ended the item.
        if report.when == "call" or (report.when == "setup" and not report.passed):
            self.records.extend(json.loads(str(value)) for name, value in report.user_properties if name == PROPERTY)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(self.config, "workerinput") or not self.records:
            return
        from modelkit.errors import ModelkitError  # noqa: PLC0415
        from modelkit.reports import evidence  # noqa: PLC0415

        try:
            evidence.write(self.records, self.root)
        except ModelkitError as error:
            self.trouble.append(str(error))
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if session.exitstatus == pytest.ExitCode.OK and (silent := self._silent()):
            # A green run must mean that something was found to conform.
            only_drafts = all(record["draft"] for record in self.records)
            session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED if only_drafts else pytest.ExitCode.TESTS_FAILED
            self.trouble.extend(f"{path}: no check came to a verdict, so this run is not green" for path in silent)

    def _silent(self) -> tuple[str, ...]:
        """Manifests that yielded no verdict; drafts beside checked manifests are no reason to fail."""
        judged = {r["manifest"] for r in self.records if r["verdict"]["outcome"] in ("passed", "failed", "excused")}
        drafts = {r["manifest"] for r in self.records if r["draft"]} if judged else set()
        return tuple(sorted({r["manifest"] for r in self.records} - judged - drafts))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.records:
            return
        from modelkit.reports import table  # noqa: PLC0415

        writer = self.config.get_terminal_writer()
        terminalreporter.ensure_newline()
        terminalreporter.write(table.render(self.records, writer.fullwidth, writer.hasmarkup))
        for line in self.trouble:
            terminalreporter.write_line(line, red=True)


class ManifestFile(pytest.File):
    """One manifest; its children are its variants. Parsed here, neither fetched nor built."""

    def __init__(self, *, run: Run, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.run = run

    def collect(self) -> Iterator[pytest.Collector]:
        from modelkit import conformance, delivery, lock, manifest  # noqa: PLC0415
        from modelkit.errors import ManifestError  # noqa: PLC0415

        try:
            read = manifest.load(_shown(self.path))
            checks = conformance.plan(read, self.config.getoption("modelkit_profile"))
            delivery.insist_on_own_folders(read, self.run.owners)
        except ManifestError as error:
            raise self.CollectError(str(error)) from error
        draft = not lock.path_of(self.path).exists()
        for variant in read.variants.values():
            yield VariantCollector.from_parent(
                self, name=variant.name, run=self.run, manifest=read, variant=variant, checks=checks, draft=draft
            )


class VariantCollector(pytest.Collector):
    """One variant: built once, in setup, for all its checks."""

    def __init__(
        self, *, run: Run, manifest: Manifest, variant: Variant, checks: tuple[str, ...], draft: bool, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.run, self.manifest, self.variant, self.checks = run, manifest, variant, checks
        self.draft = draft
        self.examination: Examination | None = None
        self.folder: Path | None = None
        self.failure: str | None = None
        self.told: list[str] = []
        self.keys: dict[str, str] = {}
        self.standing: dict[str, list[str]] = {}

    def collect(self) -> Iterator[pytest.Item]:
        items = [CheckItem.from_parent(self, name=check) for check in self.checks]
        if self.config.getoption("modelkit_prove"):
            from modelkit.conformance import PROOF  # noqa: PLC0415

            items.append(ProofItem.from_parent(self, name=PROOF))
        for item in items:
            item.add_marker(
                pytest.mark.modelkit(
                    model=self.manifest.name,
                    variant=self.variant.name,
                    check=item.name,
                    task=self.manifest.task.kind,
                    channel=self.variant.channel,
                )
            )
            yield item

    def setup(self) -> None:
        """Build and deliver. A failure is kept for the first check to raise: one error, not one per check."""
        from modelkit.errors import ModelkitError  # noqa: PLC0415

        option = self.config.getoption
        if self.draft and not option("modelkit_drafts"):
            return
        try:
            self._build(force=option("modelkit_force"), offline=option("modelkit_offline"))
        except ModelkitError as error:
            self.failure = str(error)

    def _build(self, *, force: bool, offline: bool) -> None:
        from modelkit import conformance, delivery, lock, pipeline, proving  # noqa: PLC0415
        from modelkit.errors import ManifestError  # noqa: PLC0415
        from modelkit.reports import evidence  # noqa: PLC0415
        from modelkit.vocabulary import Fetching  # noqa: PLC0415

        store, context = self.run.store, Fetching(self.path.parent, offline)
        locked = lock.read(self.manifest.path)
        if locked is None and not self.draft:
            raise ManifestError("its lock went away during the run", where=self.path, hint="run again")
        prepared = self.run.pins.prepare(self.manifest, self.variant, locked, context, force=force)
        artifact = pipeline.build(prepared, locked)
        self.folder = delivery.folder_of(self.manifest, self.variant, self.run.root)
        delivery.deliver(artifact, self.folder, force=force)
        option = self.config.getoption
        self.examination = conformance.Examination(
            prepared, artifact, option("modelkit_profile"), option("modelkit_examples")
        )
        self.keys, self.standing = self.examination.keys(), self.examination.standing()
        if option("modelkit_prove"):
            self.keys[conformance.PROOF] = proving.key(self.examination)
        place = self.run.root, self.variant.channel, self.manifest.name, self.variant.name
        if evidence.holds(*place, conformance.PROOF) or option("modelkit_prove"):
            self.standing[conformance.PROOF] = proving.standing(self.examination)
        self.told = [*prepared.job.told, *store.dropped]
        store.dropped.clear()

    def teardown(self) -> None:
        self.examination = None  # sessions hold the whole model


class CheckItem(pytest.Item):
    """One promise of one artifact."""

    parent: VariantCollector

    def setup(self) -> None:
        from modelkit.vocabulary import Verdict  # noqa: PLC0415

        variant = self.parent
        if variant.failure is not None:
            reason, variant.failure = variant.failure, ""
            if not reason:
                self._skip(Verdict(self.name, "skipped", "not checked: the build failed"))
            self._report(Verdict(self.name, "errored", reason))
            pytest.fail(reason, pytrace=False)
        if variant.examination is None:
            lock = self.path.with_suffix(".lock").name
            hint = f"run `modelkit lock {_shown(self.path)}`, or build it all the same with --modelkit-drafts"
            self._skip(Verdict(self.name, "skipped", f"draft: there is no {lock}; {hint}"))

    def runtest(self) -> None:
        from modelkit.errors import ModelkitError  # noqa: PLC0415
        from modelkit.vocabulary import Verdict  # noqa: PLC0415

        assert self.parent.examination is not None  # setup skips or fails otherwise
        # Said of a check that crashes, too: otherwise the report would know nothing of it.
        told = Verdict(self.name, "errored", "the check crashed; its traceback is in pytest's output")
        try:
            verdict = told = self._judge(self.parent.examination)
        except ModelkitError as error:
            told = Verdict(self.name, "errored", str(error))
            raise
        finally:
            if told.outcome == "errored":
                self._report(told)
        if verdict.outcome == "skipped":
            self._skip(verdict)
        self._report(verdict)
        if verdict.outcome == "excused":
            pytest.xfail(verdict.sentence)
        if verdict.outcome == "failed":
            raise BrokenPromiseError(self._told(verdict))

    def _judge(self, examination: Examination) -> Verdict:
        return examination.run(self.name)

    def _skip(self, verdict: Verdict) -> None:
        self._report(verdict)
        pytest.skip(verdict.sentence)

    def _told(self, verdict: Verdict) -> str:
        from modelkit.reports import records  # noqa: PLC0415

        manifest, variant, option = self.parent.manifest, self.parent.variant, self.config.getoption
        choices = option("modelkit_profile"), option("modelkit_examples")
        again = records.again(manifest, variant, self.name, *choices, draft=self.parent.draft)
        first = f"{_shown(self.path)}: {manifest.name}/{variant.name}: {verdict.sentence}"
        return "\n".join([first, *records.details(verdict.worst, again)])

    def _report(self, verdict: Verdict) -> None:
        from modelkit.reports.records import record  # noqa: PLC0415

        variant = self.parent
        artifact = variant.examination.artifact if variant.examination else None
        one = record(
            variant.manifest,
            variant.variant,
            verdict,
            artifact,
            variant.folder,
            variant.told,
            variant.draft,
            variant.keys,
            variant.standing,
            self.config.getoption("modelkit_profile"),
            self.config.getoption("modelkit_examples"),
        )
        self.user_properties.append((PROPERTY, json.dumps(one)))
        # Beside the record, each figure by its name: that is what JUnit viewers show.
        figures = {"margin": verdict.margin, **verdict.measured}
        self.user_properties.extend(
            (f"{PROPERTY}.{name}", value) for name, value in figures.items() if isinstance(value, int | float | str)
        )

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        from modelkit.errors import ModelkitError  # noqa: PLC0415

        if isinstance(excinfo.value, BrokenPromiseError | ModelkitError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        line = self.parent.manifest.place(f"variants.{self.parent.name}").line
        return self.path, line - 1, f"{self.parent.manifest.name}/{self.parent.name}: {self.name}"


class ProofItem(CheckItem):
    """Whether the checks of one artifact notice faults in copies of it."""

    def _judge(self, examination: Examination) -> Verdict:
        from modelkit import proving  # noqa: PLC0415

        return proving.verdict(examination)


class BrokenPromiseError(Exception):
    """A check failed; the message is the whole report."""


def _shown(path: Path) -> Path:
    """`path` as a person would write it here."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
