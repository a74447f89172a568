"""The pairs of experiments, and draws of the sentinel, in SQLite."""

# ruff: noqa: S608 - statements are put together from constants; values are always bound

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec
from msgspec.structs import replace

from gateway.storage.database.sqlite.values import Columns, encode, micros, moment
from gateway.storage.shadows import Judged, ShadowRow, VoteRow
from policies.experiments.constancy import Draw
from policies.experiments.pairs import Pair

PAIR = "body, measures, shadow_call, team, user"
KEEP = "INSERT INTO shadow_pairs VALUES (?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT DO NOTHING"
MEASURE = "UPDATE shadow_pairs SET body = ?, measures = ? WHERE id = ?"
UNMEASURE = """UPDATE shadow_pairs SET measures = NULL WHERE experiment = ?
    AND EXISTS (SELECT 1 FROM assets WHERE assets.id = body ->> '$.champion.asset')
    AND EXISTS (SELECT 1 FROM assets WHERE assets.id = body ->> '$.challenger_side.asset')"""
CALLS = "SELECT shadow_call FROM shadow_pairs WHERE call_id IN (SELECT value FROM json_each(?))"
COUNT_LEFT_OUT = """INSERT INTO shadow_left_out VALUES (?,?,?,?)
    ON CONFLICT DO UPDATE SET calls = calls + excluded.calls"""
LEFT_OUT = "SELECT reason, SUM(calls) FROM shadow_left_out WHERE experiment = ? GROUP BY reason ORDER BY 2 DESC"
DROP = "DELETE FROM shadow_pairs WHERE expires <= ?"
UNMEASURED = f"""SELECT {PAIR} FROM shadow_pairs
    WHERE measures IS NULL AND (? IS NULL OR experiment = ?) ORDER BY at LIMIT ?"""
UNJUDGED = f"""SELECT {PAIR} FROM shadow_pairs AS pairs
    WHERE (experiment, challenger, body ->> '$.terms') IN
        (SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?))
    AND measures IS NOT NULL AND body -> '$.require' IS NOT NULL
    AND body ->> '$.champion.outcome' = 'delivered' AND body ->> '$.challenger_side.outcome' = 'delivered'
    AND EXISTS (SELECT 1 FROM assets WHERE assets.id = body ->> '$.champion.asset')
    AND EXISTS (SELECT 1 FROM assets WHERE assets.id = body ->> '$.challenger_side.asset')
    AND (body ->> '$.require.region' IS NULL OR body ->> '$.require.region' = ?)
    AND (body ->> '$.require.training' IS NOT 'never' OR ?)
    AND (body ->> '$.require.retention_days' IS NULL OR body ->> '$.require.retention_days' >= ?)
    AND NOT EXISTS (SELECT 1 FROM shadow_judgements
        WHERE pair = pairs.id AND (judgement IS NOT NULL OR shadow_judgements.at > ?))
    AND (SELECT COUNT(*) FROM shadow_judgements WHERE pair = pairs.id AND NOT of_all) < ?
    ORDER BY (SELECT COUNT(*) FROM shadow_judgements WHERE pair = pairs.id), at, id LIMIT ?"""
BEGIN_JUDGEMENT = """INSERT INTO shadow_judgements (pair, at, experiment, cost) SELECT ?, ?, ?, ?
    WHERE (SELECT COALESCE(SUM(cost), 0) FROM shadow_judgements WHERE at >= ?) + ? <= ?
    AND NOT EXISTS (SELECT 1 FROM shadow_judgements WHERE pair = ? AND (judgement IS NOT NULL OR at > ?))"""
END_JUDGEMENT = """UPDATE shadow_judgements SET judgement = ?, failure = ?, of_all = ?, cost = ?
    WHERE pair = ? AND at = ?"""
JUDGED = """SELECT judgement, COALESCE(failure, 'cut short'), COUNT(*), SUM(cost) FROM shadow_judgements
    WHERE experiment = ? GROUP BY 1, 2 ORDER BY 3 DESC"""
KEEP_VOTE = """INSERT INTO shadow_votes (pair, voter, experiment, choice, at, imported) VALUES (?,?,?,?,?,?)
    ON CONFLICT DO UPDATE SET choice = excluded.choice, at = excluded.at WHERE excluded.at > shadow_votes.at"""
VOTES = """SELECT pair, voter, experiment, choice, at, imported FROM shadow_votes
    WHERE experiment = ? ORDER BY imported, pair, voter"""
DROP_VOTES = "DELETE FROM shadow_votes WHERE pair NOT IN (SELECT id FROM shadow_pairs)"
PAIRS = f"""SELECT {PAIR},
    (SELECT AVG(choice) FROM shadow_votes WHERE pair = shadow_pairs.id),
    (SELECT MIN(imported) FROM shadow_votes WHERE pair = shadow_pairs.id),
    (SELECT judgement FROM shadow_judgements
        WHERE pair = shadow_pairs.id AND judgement IS NOT NULL ORDER BY shadow_judgements.at LIMIT 1),
    EXISTS (SELECT 1 FROM assets WHERE assets.id = body ->> '$.champion.asset'),
    EXISTS (SELECT 1 FROM assets WHERE assets.id = body ->> '$.challenger_side.asset')
    FROM shadow_pairs WHERE experiment = ? ORDER BY at, id"""

ASKED = "SELECT 1 FROM recipes WHERE call_id = ?"

KEEP_DRAW = "INSERT INTO sentinel_draws VALUES (?,?,?,?,?)"
DRAWS = "SELECT body FROM sentinel_draws WHERE ? IS NULL OR offer = ? ORDER BY at, id"

_decode_draw = msgspec.json.Decoder(Draw).decode
_decode_pair = msgspec.json.Decoder(Pair).decode
_decode_measures = msgspec.json.Decoder(Mapping[str, float]).decode


def columns(row: ShadowRow) -> tuple[object, ...]:
    """In the order of the table."""
    pair = row.pair
    return (
        pair.id,
        pair.experiment,
        pair.challenger,
        pair.call_id,
        row.shadow_call,
        round(pair.at * 1e6),
        round(pair.expires * 1e6),
        row.team,
        row.user,
        _body(pair),
        encode(pair.measures) if row.measured else None,
    )


def draw_columns(draw: Draw) -> tuple[object, ...]:
    """In the order of the table."""
    return draw.id, draw.offer, draw.prompt, round(draw.at * 1e6), encode(draw)


def draw(columns: Columns) -> Draw:
    """From the column of `DRAWS`."""
    return _decode_draw(columns[0])


def measured_columns(pair: Pair) -> tuple[object, ...]:
    """In the order `MEASURE` binds."""
    return _body(pair), encode(pair.measures), pair.id


def row(columns: Columns) -> ShadowRow:
    """From the columns of `PAIR`."""
    body, measures, shadow_call, team, user = columns
    return ShadowRow(
        pair=_pair(body, measures), shadow_call=shadow_call, team=team, user=user, measured=measures is not None
    )


def pair(columns: Columns) -> Pair:
    """From the columns of `PAIRS`: with the pictures that are still kept."""
    body, measures, _, _, _, votes, voted, judge, champion, challenger = columns
    found = _pair(body, measures)
    if votes is not None:
        found = replace(found, measures={**found.measures, "votes": votes}, voted=voted / 1e6)
    if judge is not None:
        found = replace(found, measures={**found.measures, "judge": float(judge)})
    if not champion:
        found = replace(found, champion=replace(found.champion, asset=None))
    if not challenger:
        found = replace(found, challenger_side=replace(found.challenger_side, asset=None))
    return found


def vote_columns(vote: VoteRow) -> tuple[object, ...]:
    """In the order `KEEP_VOTE` binds."""
    return vote.pair, vote.voter, vote.experiment, vote.choice, micros(vote.at), micros(vote.imported)


def vote(columns: Columns) -> VoteRow:
    """From the columns of `VOTES`."""
    pair, voter, experiment, choice, at, imported = columns
    return VoteRow(
        pair=pair, voter=voter, experiment=experiment, choice=choice, at=moment(at), imported=moment(imported)
    )


def judged(rows: Sequence[Columns]) -> Judged:
    """From the rows of `JUDGED`."""
    said: Counter[int] = Counter()
    failures: Counter[str] = Counter()
    for judgement, failure, times, _ in rows:
        if judgement is None:
            failures[failure] += times
        else:
            said[judgement] += times
    return Judged(judgements=said, failures=failures, cost=sum(row[3] for row in rows))


def _pair(body: bytes, measures: bytes | None) -> Pair:
    pair = _decode_pair(body)
    return pair if measures is None else replace(pair, measures=_decode_measures(measures))


def _body(pair: Pair) -> bytes:
    return encode(replace(pair, measures={}))
