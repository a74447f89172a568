"""The `pixelgate` command: one module per command, imported when it is called.

Exit codes, for every command: 0 all is well; 1 it found something, or could not do what was asked; 2 bad usage or a
bad file. Answers go to standard output, everything else to standard error.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cyclopts

COMMANDS = {
    "demo": ("gateway.cli.demo:demo", "Sandbox providers and the gateway on this machine; needs no keys."),
    "serve": ("gateway.cli.serve:serve", "The gateway, with your configuration and keys."),
    "quote": ("gateway.cli.quote:quote", "What every offer would charge for a picture, cheapest first."),
    "calculator": ("gateway.cli.calculator:calculator", "What volumes of pictures would cost at every offer."),
    "explain": ("gateway.cli.explain:explain", "A decision, past or hypothetical: candidates, costs, rejections."),
    "doctor": ("gateway.cli.doctor:doctor", "Looks for what would go wrong: keys, prices, folders, books."),
    "sandbox": ("gateway.cli.sandbox:sandbox", "The providers' twins alone, for your own tests."),
}
GROUPS = {
    "policy": (
        "Policies: checked, tried and simulated; and the one in force: its history, changes to it, the way back.",
        {
            "lint": ("gateway.cli.policy_lint:lint", "What is wrong or suspicious in policy files, and the fix."),
            "test": ("gateway.cli.policy_test:examples", "Runs the examples that policy files carry."),
            "schema": ("gateway.cli.policy_schema:schema", "The policy language as JSON Schema, for editors."),
            "simulate": ("gateway.cli.simulate:simulate", "Plays traffic through a policy, beside baselines."),
            "replay": ("gateway.cli.replay:replay", "Decides recorded calls again under another policy or price book."),
            "diff": ("gateway.cli.replay:diff", "Compares two policies over the same recorded calls."),
            "trace": ("gateway.cli.replay:trace", "Writes the recorded calls, one JSON object a line."),
            "history": ("gateway.cli.policy_history:history", "Who changed it, when and why."),
            "show": ("gateway.cli.policy_show:show", "One revision, or what it changed."),
            "apply": ("gateway.cli.policy_apply:apply", "Puts a file in force, unless somebody else came in between."),
            "canary": ("gateway.cli.policy_canary:canary", "Tries a file on a part of the calls: start, status, ..."),
            "rollback": ("gateway.cli.policy_rollback:rollback", "Puts an earlier revision in force again."),
        },
    ),
    "shadow": (
        "Experiments: sellers compared on copies of live calls.",
        {
            "plan": ("gateway.cli.shadow_plan:plan", "What experiments will cost, and when they can say something."),
            "list": ("gateway.cli.shadow_report:list_experiments", "Every experiment, and what it says so far."),
            "report": ("gateway.cli.shadow_report:report", "Switch, stay or not yet decided; what a switch is worth."),
            "run": (
                "gateway.cli.shadow_run:run",
                "An experiment over stored prompts; with --aa, of a seller with itself.",
            ),
            "measure": ("gateway.cli.shadow_run:measure", "Measures the pictures that the gateway has not come to."),
            "judge": ("gateway.cli.shadow_judge:judge", "Asks the judge about pairs that the gateway has not come to."),
            "vote": ("gateway.cli.shadow_vote:vote", "A page on which people say which picture is better, blind."),
            "votes": ("gateway.cli.shadow_vote:votes", "Takes in what people said on such pages."),
            "adopt": ("gateway.cli.shadow_adopt:adopt", "The policy a verdict asks for, played over recorded calls."),
            "migrate": ("gateway.cli.shadow_migrate:migrate", "The experiment that tests a move between accounts."),
        },
    ),
    "sentinel": (
        "Fixed prompts and seeds, drawn again and again: whether an offer has changed.",
        {
            "run": ("gateway.cli.sentinel:run", "Draws once at every offer now, and tells what has changed."),
            "list": ("gateway.cli.sentinel:list_draws", "What was drawn last at each offer, and what was told of it."),
        },
    ),
    "keys": (
        "API keys: make them, say what they may do, give them fresh secrets, end them.",
        {
            "create": ("gateway.cli.keys:create", "Makes a key and shows it, once."),
            "list": ("gateway.cli.keys:list_keys", "Every key, with what it spent; never the key itself."),
            "show": ("gateway.cli.keys:show", "One key: its terms, what it spent, what was changed last."),
            "limit": ("gateway.cli.keys:limit", "Changes what a key may do."),
            "rotate": ("gateway.cli.keys:rotate", "Gives a key a fresh secret; the one it had stays good for a while."),
            "release": ("gateway.cli.keys:release", "Lets a key go on that was paused for spending too fast."),
            "revoke": ("gateway.cli.keys:revoke", "Ends a key for good."),
            "history": ("gateway.cli.keys:history", "Who changed what of keys, and when."),
        },
    ),
    "accounts": (
        "Provider accounts with files of their own, and their keys.",
        {
            "list": (
                "gateway.cli.accounts:list_accounts",
                "Every account: whose, on or off, where its key is from.",
            ),
            "add": ("gateway.cli.accounts:add", "Adds an account, its key named or sealed."),
            "remove": ("gateway.cli.accounts:remove", "Removes one."),
            "seal": ("gateway.cli.accounts:seal_key", "Encrypts a provider key for a file."),
            "reseal": ("gateway.cli.accounts:reseal", "Encrypts all of them anew, under a fresh master key."),
            "master-key": ("gateway.cli.accounts:master_key", "Makes a master key."),
            "history": ("gateway.cli.accounts:history", "Who added and removed accounts, and when."),
        },
    ),
    "prices": (
        "The price book, and sellers' own lists beside it.",
        {
            "list": ("gateway.cli.prices:list_prices", "Every price, where it was read and when; announced changes."),
            "check": ("gateway.cli.prices:check", "Our prices against what sellers list."),
            "sync": ("gateway.cli.price_sync:sync", "Asks sellers, and proposes what would change."),
            "apply": ("gateway.cli.price_sync:apply", "Puts what is proposed in force."),
            "reject": ("gateway.cli.price_sync:reject", "Leaves what is proposed alone."),
            "history": ("gateway.cli.price_sync:history", "Who applied what, when and why."),
            "rollback": ("gateway.cli.price_sync:rollback", "Puts earlier synced prices in force again."),
        },
    ),
    "budgets": (
        "What may be spent in a day, a month or any window: by team, key, user, tag, model, account, or in all.",
        {
            "set": ("gateway.cli.budgets:set_budget", "Makes a budget, or changes its limit."),
            "list": ("gateway.cli.budgets:list_budgets", "Every budget, with what is spent and left."),
            "raise": ("gateway.cli.budgets:raise_budget", "Adds to a budget for a while."),
            "remove": ("gateway.cli.budgets:remove", "Lifts a budget."),
        },
    ),
    "alerts": (
        "What is told about money, and to whom.",
        {
            "list": ("gateway.cli.alerts:list_alerts", "The alerts raised last."),
            "test": ("gateway.cli.alerts:try_hooks", "Posts a test alert to every hook."),
        },
    ),
    "report": (
        "What was spent, on what, what that saved, and what to change.",
        {
            "daily": ("gateway.cli.report:daily", "A day."),
            "weekly": ("gateway.cli.report:weekly", "A week, from Monday."),
            "monthly": ("gateway.cli.report:monthly", "A month."),
        },
    ),
    "statement": (
        "A provider account's month: held against its invoice, then locked.",
        {
            "show": ("gateway.cli.statement:show", "A month by endpoint, beside the invoice."),
            "close": ("gateway.cli.statement:close_month", "Locks a month that agrees with its invoice."),
            "list": ("gateway.cli.statement:list_statements", "The closed months."),
        },
    ),
    "advise": (
        "What to own, and how much of everything.",
        {
            "selfhost": ("gateway.cli.advise:selfhost", "Whether GPUs of your own would pay."),
            "capacity": ("gateway.cli.advise:capacity", "Slots, credit and GPUs for a forecast peak."),
        },
    ),
    "privacy": (
        "What is kept of people.",
        {"erase": ("gateway.cli.privacy:erase", "Erases what was drawn for an end user, at providers too.")},
    ),
    "ledger": (
        "The books: do they agree, with themselves and with the providers?",
        {
            "reconcile": ("gateway.cli.ledger:reconcile", "Our books against what each provider says it bills."),
            "invoices": (
                "gateway.cli.invoices:invoices",
                "How accounts' invoices stand: discounts, what is free, credit.",
            ),
            "audit": ("gateway.cli.ledger:audit", "Every promise about money, recomputed from the entries."),
            "machines": ("gateway.cli.machines:machines", "What our own GPUs cost, busy and idle."),
            "export": ("gateway.cli.ledger:export", "The entries, as CSV or JSON lines."),
        },
    ),
}


def build_app() -> cyclopts.App:
    """The command tree; no command's module is imported yet."""
    app = cyclopts.App(
        name="pixelgate",
        help="A cost-aware gateway for image generation: one OpenAI-style endpoint, exact money.",
        version=_version,
        result_action="return_value",
        exit_on_error=False,
        default_parameter=cyclopts.Parameter(negative=()),
    )
    for name, (path, about) in COMMANDS.items():
        app.command(path, name=name, help=about)
    for group, (about, commands) in GROUPS.items():
        below = cyclopts.App(name=group, help=about)
        for name, (path, says) in commands.items():
            below.command(path, name=name, help=says)
        app.command(below)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code; what a person can mend is said without a traceback."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:  # noqa: PLR0911 - one return for each way to end
    """The exit code of one command line."""
    from gateway.cli.shell import Stop
    from gateway.errors import GatewayError, InvalidRequest, NotFound
    from gateway.yaml_files import BadFile

    try:
        return int(build_app()(list(arguments) or ["--help"]) or 0)
    except cyclopts.CycloptsError:
        return 2
    except Stop as stop:
        print(f"pixelgate: {stop}", file=sys.stderr)
        return stop.code
    except BadFile as error:
        faults = len(error.faults)
        print(f"{error}\n\npixelgate: {faults} fault{'s' * (faults != 1)}; nothing was started", file=sys.stderr)
        return 2
    except GatewayError as error:
        print(f"pixelgate: {error.message}", file=sys.stderr)
        return 2 if isinstance(error, InvalidRequest | NotFound) else 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 141


def _version() -> str:
    try:
        return version("pixelgate")
    except PackageNotFoundError:  # run from a checkout, which is not installed
        project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return f"{project['version']} (checkout)"
