"""The search: objective, local search, determinism, interruption, stores, the table that is shipped."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from fractions import Fraction
from itertools import combinations
from multiprocessing import get_context

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastconv as fc
from fastconv.algebra import best_row
from fastconv.arithmetic import policy_named
from fastconv.error.predict.compiled.bulk import predict_errors
from fastconv.search import Store
from fastconv.search.points.candidates import family, few_bits, in_order, near, nearest, projective_start, random_start, rationals
from fastconv.search.points.objective import objective_named
from fastconv.search.points.refine import Search, _blocks, _options, _signed
from fastconv.search.points.run import _executor, _seconds
from fastconv.search.points.units import CHUNK, points_of, policy_data, policy_from, run_unit, subsets, text_of

POOL = [0, 1, -1, Fraction(1, 2), Fraction(-1, 2), 2, -2]
QUICK = {"dims": 1, "starts": 3, "confirm": 3, "trials": 200, "infinity": True, "height": 6, "bits": 3}


def sets_of(found):
    return [(s.points, s.value, s.measured) for s in found]


@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("n", [4, 6, 9, 13])
def test_objective_is_close_to_the_measured_error(n, dims):
    """Within 35 %: the model leaves out what depends on the grid of the inputs, up to 38 % at n = 4 (documented protocol)."""
    points = fc.published_points("barabasz2020", n, dims)
    objective = objective_named("predicted")(n - 2, 3, dims, "fp32")
    predicted = objective(np.array([points[:-1]], float), True)[0]
    measured = fc.measure_error(fc.toom_cook(n - 2, 3, points), dims=dims, trials=1000).mean_abs
    assert 0.75 < predicted / measured < 1.35


@pytest.mark.parametrize("policy", ["fp32", "bf16", "mixed"])
def test_objective_ranks_as_the_measurement_does(policy):
    """Sets whose measured errors differ by more than a quarter are put in the right order."""
    sets = [fc.published_points(s, 6) for s in ("lavin2016", "barabasz2020", "onednn", "nova2025", "fastconv")]
    objective = objective_named("predicted")(4, 3, 2, policy)
    predicted = objective(np.array([p[:-1] for p in sets], float), True)
    measured = [fc.measure_error(fc.toom_cook(4, 3, p), dims=2, policy=policy, trials=1000).mean_abs for p in sets]
    pairs = [(i, j) for i in range(5) for j in range(5) if measured[i] > 1.25 * measured[j]]
    assert pairs
    assert all(predicted[i] > predicted[j] for i, j in pairs)


@given(st.lists(st.sampled_from(rationals(8)), min_size=5, max_size=5, unique=True), st.booleans())
def test_objective_has_the_symmetries_of_the_error(points, infinity):
    """Neither turning all signs nor the order of the points matters; ties among sums may fall otherwise, hence 5 %."""
    objective = objective_named("predicted")(6 - 2 if infinity else 3, 3, 1, "fp32")
    base = np.array(points, float) * [1, -1, 1, -1, 1]
    values = objective(np.array([base, base[::-1], -base]), infinity)
    assert values[0] == values[1]
    assert values[2] == pytest.approx(values[0], rel=0.05)


def test_objective_refuses_coinciding_points():
    for name in ("predicted", "condition"):
        assert objective_named(name)(2, 3, 1, "fp32")(np.array([[0.0, 1.0, 1.0]]), True)[0] == np.inf


def test_condition_is_that_of_the_vandermonde_matrix():
    """kappa_2 of {0, +-1, +-2} is 42.472 (published with NOVA)."""
    assert objective_named("condition")(4, 3, 2, "fp32")(np.array([[0, 1, -1, 2, -2]], float), True)[0] == pytest.approx(42.472, rel=1e-4)


def test_candidates():
    assert len(rationals(6)) == 23
    assert set(rationals(6)) == {Fraction(p, q) for p in range(1, 7) for q in range(1, 7)}
    assert all(p.numerator.bit_length() <= 3 or p.numerator % 2 == 0 for p in few_bits(3, 0.1, 9))
    assert all(0.5 <= p <= 1.0 for p in near(0.75, 9, 4, 0.25) if p < 0.75)
    assert Fraction(3, 4) in near(-0.74, 9, 4, 0.25)


@given(st.integers(0, 2**31), st.integers(2, 12))
def test_random_starts_are_distinct_points_of_the_pool(seed, k):
    pool = in_order({Fraction(0), *rationals(4), *(-p for p in rationals(4))})
    start = random_start(np.random.default_rng(seed), k, pool)
    assert len(set(start)) == k
    assert set(start) <= set(pool)


def test_exhaustive_search_finds_the_best_subset():
    found = fc.search_points(3, 3, dims=2, candidates=POOL, store=None, infinity=True, confirm=0, keep=40)
    subsets = list(combinations(in_order(map(Fraction, POOL)), 4))
    mean = np.array([fc.predict_error(fc.toom_cook(3, 3, [*points, "inf"]), 2).mean_abs for points in subsets])
    assert len(found) == len(subsets) == found.evaluated
    assert sorted(s.value for s in found) == sorted(mean)
    assert found[0].value <= mean.min() * 1.01  # within 0.1 %, rounded to three digits, operations decide
    same = dict(zip(subsets, mean, strict=True))
    assert all(same[s.points[:-1]] == s.value for s in found)


@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("policy", ["fp32", "bf16"])
def test_the_objective_is_the_prediction_in_the_order_of_toom_cook(dims, policy):
    base = np.array(fc.published_points("barabasz2020", 8, dims)[:-1], float)
    sets = base * np.exp(np.random.default_rng(0).normal(0, 0.1, (50, 7)))
    sets[::2, 3] = -sets[::2, 2]
    ordered = np.array([sorted(points, key=lambda p: (abs(p), p)) for points in sets])
    mean, _ = predict_errors(ordered, 6, 3, dims, policy)
    objective = objective_named("predicted")(6, 3, dims, policy)
    assert objective(sets, True).tolist() == mean.tolist()
    assert objective(sets - 0.0 * sets, True).tolist() == mean.tolist()  # -0.0 is 0.0


def test_descent_reaches_the_known_level():
    """F(4x4,3x3): 24 % below the published 3.29e-7, from a handful of starts."""
    found = fc.search_points(4, 3, store=None, starts=2, infinity=True, confirm=4, trials=3000)
    assert found[0].measured < 0.76 * 3.29e-7
    assert all(s.stderr < 0.02 * s.measured for s in found[:4])
    assert [s.measured for s in found[4:]] == [None] * (len(found) - 4)
    found.algorithm().verify()


def test_local_search_never_gets_worse():
    objective = objective_named("predicted")(4, 3, 2, "fp32")
    search, rng = Search(objective, True), np.random.default_rng(0)
    start = (Fraction(0), Fraction(1), Fraction(-1), Fraction(2), Fraction(-2))
    begin = objective(np.array([start], float), True)[0]
    points, value = search.exchange(start, lambda p: rationals(5) + tuple(-q for q in rationals(5)), rng)
    refined, better = search.polished(points, rng, 16, 5)
    assert better <= value < begin
    assert objective(np.array([refined], float), True)[0] == better
    assert search.best()[0][1] <= better


def test_operations_break_ties():
    found = fc.search_points(2, 3, dims=1, candidates=POOL, store=None, infinity=True, trials=300)
    measured = [s for s in found if s.measured is not None]
    for a, b in zip(measured, measured[1:], strict=False):
        assert a.measured <= b.measured + a.stderr + b.stderr


def test_the_result_does_not_depend_on_the_workers():
    serial = fc.search_points(3, 3, store=None, **QUICK)
    with ThreadPoolExecutor(3) as threads:
        threaded = fc.search_points(3, 3, store=None, executor=threads, **QUICK)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as processes:
        spread = fc.search_points(3, 3, store=None, executor=processes, **QUICK)
    assert sets_of(serial) == sets_of(threaded) == sets_of(spread)
    assert serial == threaded
    other = fc.search_points(3, 3, store=None, **QUICK | {"seed": 1})
    assert other.evaluated != serial.evaluated


def test_a_second_run_computes_nothing(tmp_path):
    first = fc.search_points(3, 3, store=tmp_path / "s.sqlite", **QUICK)
    again = fc.search_points(3, 3, store=tmp_path / "s.sqlite", **QUICK)
    assert first == again
    assert (first.reused, again.computed) == (0, 0)
    assert again.reused == first.computed
    more = fc.search_points(3, 3, store=tmp_path / "s.sqlite", **QUICK | {"starts": 4})
    assert 0 < more.computed <= 1 + QUICK["confirm"]


SCRIPT = """
import sys, fastconv as fc
def tell(done, total, evaluated):
    print(done, flush=True)
options = dict(dims=1, starts=6, confirm=3, trials=200, infinity=True, height=6, bits=3)
found = fc.search_points(3, 3, store=sys.argv[1], progress=tell, **options)
print(found.reused, found.computed, *[(*map(str, s.points), s.value, s.measured) for s in found], sep=";")
"""


def script(path):
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(path)], stdout=subprocess.PIPE, text=True)


def last_line(process):
    text = process.communicate(timeout=60)[0]
    assert process.returncode == 0
    reused, computed, *ranking = text.strip().splitlines()[-1].split(";")
    return int(reused), int(computed), ranking


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    path = tmp_path / "s.sqlite"
    victim = script(path)
    for _ in range(4):
        assert victim.stdout.readline()
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    with Store(path) as store:
        kept = len(store)
    reused, computed, ranking = last_line(script(path))
    assert 4 <= kept <= reused
    _, whole, fresh = last_line(script(tmp_path / "t.sqlite"))
    assert computed == whole - reused
    assert ranking == fresh


def test_two_runs_share_a_store(tmp_path):
    path = tmp_path / "s.sqlite"
    both = [script(path), script(path)]
    (_, a, first), (_, b, second) = map(last_line, both)
    assert first == second
    with Store(path) as store:
        units = len(store)
    assert units <= a + b
    reused, computed, ranking = last_line(script(path))
    assert (reused, computed, ranking) == (units, 0, first)
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    db.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.sqlite"]


def test_shards_make_a_whole(tmp_path):
    parts = [tmp_path / f"{i}.sqlite" for i in range(3)]
    alone = [fc.search_points(3, 3, store=part, shard=(i, 3), **QUICK) for i, part in enumerate(parts)]
    with Store(tmp_path / "all.sqlite") as store:
        added = store.merge(parts)
        assert added == len(store) > 0
        assert store.merge(parts) == 0
    whole = fc.search_points(3, 3, store=tmp_path / "all.sqlite", **QUICK)
    serial = fc.search_points(3, 3, store=None, **QUICK)
    assert sets_of(whole) == sets_of(serial)
    assert sum(part.evaluated for part in alone) == serial.evaluated == whole.evaluated
    assert whole.computed <= QUICK["confirm"]


def test_a_second_store_in_this_process_does_not_release_the_first(tmp_path):
    """Its locks are the process's: were they dropped, another process that closes the file would take the log away."""
    path = tmp_path / "s.sqlite"
    code = "import sys; from fastconv.search import Store; s = Store(sys.argv[1]); s.put({'by': 'other'}, {}); s.close()"
    with Store(path) as first:
        first.put({"by": "first"}, {})
        Store(path).close()
        subprocess.run([sys.executable, "-c", code, str(path)], check=True, timeout=60)
        assert path.with_name("s.sqlite-wal").exists()
        first.put({"by": "first again"}, {})
        assert len(first) == 3
    with Store(path) as whole:
        assert len(whole) == 3


@pytest.mark.parametrize("writing", [True, False])
def test_a_look_that_fails_is_repeated_where_another_process_has_begun_to_write(tmp_path, monkeypatch, writing):
    """Without a log the file is read without locks; if one appears meanwhile, what was read may be half of two states."""
    path, opened, others = tmp_path / "s.sqlite", [], []
    with Store(path) as store:
        store.put({"by": "first"}, {})
    connect = sqlite3.connect

    def connected(name, *rest, **options):
        if "immutable" in str(name):
            opened.append(name)
            if writing:
                others.append(connect(path, isolation_level=None))
                others[0].execute("INSERT INTO unit VALUES ('other', '{}', '{}')")
            raise sqlite3.DatabaseError("database disk image is malformed")
        return connect(name, *rest, **options)

    monkeypatch.setattr("fastconv.search.points.store.sqlite3.connect", connected)
    if writing:
        with Store(path) as whole:
            assert len(whole) == 2
        others[0].close()
    else:
        with pytest.raises(ValueError, match="is not a store of searches, or is damaged"):
            Store(path)
    assert len(opened) == 1


def damaged(path, kind):
    with Store(path) as store:
        for i in range(400):
            store.put({"unit": i}, {"text": "x" * 100})
    content = bytearray(path.read_bytes())
    if kind == "text":
        content = b"no database"
    elif kind == "empty":
        content = b""
    elif kind == "cut":
        content = content[: len(content) // 2]
    elif kind == "overwritten":
        content[4096:12288] = b"\xff" * 8192
    elif kind == "foreign":
        content[68:72] = b"\0\0\0\0"
    elif kind == "version":
        content[60:64] = (99).to_bytes(4, "big")
    path.write_bytes(content)
    return bytes(content)


@pytest.mark.parametrize("kind", ["text", "empty", "cut", "overwritten", "foreign", "version"])
def test_a_damaged_store_is_refused_and_left_alone(tmp_path, kind):
    path = tmp_path / "s.sqlite"
    content = damaged(path, kind)
    with pytest.raises(ValueError, match="version 99" if kind == "version" else "damaged"):
        fc.search_points(2, 3, store=path, **QUICK)
    assert path.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["s.sqlite"]


def test_an_error_in_a_unit_keeps_what_was_finished(tmp_path):
    class Failing(ThreadPoolExecutor):
        calls = 0

        def submit(self, *args, **kwargs):
            self.calls += 1
            return super().submit(*args, **kwargs) if self.calls < 3 else super().submit(lambda spec: 1 / 0, args[1])

    with Failing(1) as executor, pytest.raises(ZeroDivisionError):
        fc.search_points(3, 3, store=tmp_path / "s.sqlite", executor=executor, **QUICK)
    assert fc.search_points(3, 3, store=tmp_path / "s.sqlite", **QUICK).reused == 2


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"m": 0}, ValueError, "m is 0"),
        ({"m": 2.0}, TypeError, "m is 2.0"),
        ({"m": 40}, ValueError, "n = m"),
        ({"r": -1}, ValueError, "r is -1"),
        ({"dims": 3}, ValueError, "dims is 3"),
        ({"policy": "fp31"}, ValueError, "unknown policy"),
        ({"objective": "luck"}, ValueError, "unknown objective"),
        ({"candidates": []}, ValueError, "no finite point"),
        ({"candidates": ["inf"]}, ValueError, "no finite point"),
        ({"candidates": [0, 1]}, ValueError, "2 finite candidates"),
        ({"candidates": [0, 1, 0.5]}, TypeError, "0.5"),
        ({"candidates": [0, 1, "sqrt(2)"]}, ValueError, "not rational"),
        ({"candidates": "0,1,2"}, TypeError, "the text"),
        ({"shard": (2, 2)}, ValueError, "shard"),
        ({"shard": 1}, TypeError, "shard"),
        ({"executor": 4}, TypeError, "executor is 4: pass an executor of concurrent.futures, a dask.distributed Client"),
        ({"starts": 0}, ValueError, "starts is 0"),
        ({"trials": True}, TypeError, "trials"),
        ({"store": "no/such/folder/s.sqlite"}, ValueError, "not a folder"),
    ],
)
def test_bad_input(change, kind, message):
    with pytest.raises(kind, match=message) as caught:
        fc.search_points(**{"m": 2, "r": 3, "store": None} | change)
    assert "\n" not in str(caught.value)


def test_command_line(tmp_path, capsys):
    from fastconv.cli import main

    options = ["--dims", "1", "--store", str(tmp_path / "s.sqlite"), "--confirm", "3", "--trials", "200", "--workers", "1"]
    command = ["search", "2", "3", "--candidates", "0,1,-1,2,-2,1/2", *options]
    assert main([*command, "--json"]) == 0
    out, err = capsys.readouterr()
    data = json.loads(out)
    assert data["store"] == str(tmp_path / "s.sqlite")
    assert err == f"fastconv search: finished work is kept in {tmp_path / 's.sqlite'}, which --store names\n"
    assert data["sets"][0]["points"] == ["0", "-1", "1", "inf"]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert "0 computed" in out
    assert f"finished work is kept in {tmp_path / 's.sqlite'}" in out
    assert err == ""
    assert main(["search", "2", "3", "--shard", "one"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_dask_gives_the_same_when_a_worker_is_killed():
    distributed = pytest.importorskip("distributed")
    import warnings

    serial = fc.search_points(3, 3, store=None, **QUICK | {"starts": 6})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cluster = distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, silence_logs=50, processes=True
        )
        with cluster, distributed.Client(cluster) as client:
            victim = next(iter(client.run(os.getpid).values()))
            killed = []

            def tell(done, total, evaluated):
                if done == 3 and not killed:
                    os.kill(victim, signal.SIGKILL)
                    killed.append(time.time())

            spread = fc.search_points(3, 3, store=None, executor=client, progress=tell, **QUICK | {"starts": 6})
    assert killed
    assert sets_of(spread) == sets_of(serial)


TABLE = [(n - 2, 3, dims) for dims in (1, 2) for n in range(4, 19)]


@pytest.mark.parametrize(("m", "r", "dims"), TABLE)
def test_the_table_is_what_it_says(m, r, dims):
    """Each shipped set is proved, no worse than the published one, and measures as written: within 4 standard errors."""
    row = best_row(m, r, dims)
    alg = fc.toom_cook(m, r, fc.best_points(m, r, dims))
    assert all(isinstance(entry, Fraction) for matrix in (alg.AT, alg.G, alg.BT) for row in matrix for entry in row)
    assert alg.points[-1] is fc.INF
    alg.verify()
    if alg.n <= 10:
        report = fc.measure_error(alg, dims=dims, trials=1000, seed=5)
        assert abs(report.mean_abs - row["measured"]) < 4 * np.hypot(report.mean_abs_stderr, row["stderr"])


def test_the_table_is_below_the_published_errors():
    """Barabasz et al. 2020, 2-D; where their set is the best known too, within two standard errors of theirs (5000 trials)."""
    published = [7.65e-8, 2.35e-7, 3.29e-7, 6.81e-7, 8.79e-7, 3.71e-6, 7.35e-6, 2.20e-5, 3.22e-5]
    published += [1.09e-4, 1.99e-4, 5.54e-4, 8.80e-4, 1.07e-2, 1.93e-2]
    measured = [best_row(n - 2, 3, 2)["measured"] for n in range(4, 19)]
    assert all(a < b * 1.02 for a, b in zip(measured, published, strict=True))
    for n, gain in {5: 0.16, 6: 0.24, 7: 0.15, 9: 0.36, 10: 0.43, 12: 0.29}.items():
        assert measured[n - 4] < (1 - gain) * published[n - 4]


def test_where_nothing_is_of_use_best_points_says_so():
    from fastconv.algebra.catalogue import _searched, best_source

    useless = [size for size, row in _searched().items() if row["points"] is None]
    assert useless
    for m, r, dims, policy, infinity in useless:
        with pytest.raises(ValueError, match=f"F\\({m},{r}\\).*{policy}.*smaller tile") as caught:
            fc.best_points(m, r, dims, policy, infinity=infinity)
        assert "\n" not in str(caught.value)
        assert best_row(m, r, dims, policy, infinity=infinity) is None
        assert policy != "fp32"
        if infinity:
            with pytest.raises(ValueError, match="smaller tile"):
                best_source(m, r, dims, policy)


@given(st.integers(1, 12), st.data())
def test_subsets_are_those_of_combinations_in_order(size, data):
    k = data.draw(st.integers(0, size))
    every = list(combinations(range(size), k))
    begin = data.draw(st.integers(0, len(every)))
    end = data.draw(st.integers(begin, len(every)))
    assert list(map(tuple, subsets(size, k, begin, end).tolist())) == every[begin:end]


def test_chunks_of_an_exhaustive_search_keep_their_best():
    """Units of 20000 sets: each returns its best, in order, as if all had been sorted."""
    pool = in_order({Fraction(0), *rationals(3), *(-p for p in rationals(3)), Fraction(4), Fraction(-4)})
    k, keep = 7, 5
    spec = {"kind": "all", "m": 6, "r": 3, "dims": 1, "policy": policy_data("fp32"), "objective": "predicted"}
    spec |= {"infinity": True, "keep": keep, "pool": text_of(pool)}
    every = list(combinations(pool, k))
    found = run_unit(spec | {"index": 0})
    values = objective_named("predicted")(6, 3, 1, "fp32")(np.array(every[:CHUNK], float), True)
    order = np.argsort(values, kind="stable")[:keep]
    assert found["evaluated"] == min(CHUNK, len(every))
    assert found["sets"] == [[values[i], text_of(every[i])] for i in order]


def test_best_points_outside_the_table_come_from_the_catalogue():
    assert len(fc.best_points(2, 2)) == 3
    assert fc.best_points(4, 3, policy="tf32") == fc.best_points(4, 3)
    with pytest.raises(ValueError, match="without infinity"):
        fc.best_points(1, 1, infinity=False)


def test_every_row_of_the_table_is_sound():
    from fastconv.algebra.catalogue import _found
    from fastconv.exact import exact_point

    for (m, r, dims, policy, infinity), row in _found().items():
        points = [exact_point(p) for p in row["points"].split()]
        assert len(set(points)) == len(points) == m + r - 1
        assert (fc.INF in points) == infinity == (points[-1] is fc.INF)
        assert fc.best_points(m, r, dims, policy, infinity=infinity) == tuple(points)
        assert 0 < row["stderr"] < 0.03 * row["measured"]
        assert 0 < row["direct"] < row["measured"] or m + r - 1 < 4
        assert f"--r {r} --n {m + r - 1} --dims {dims} --policy {policy}" in row["command"]
        if policy == "fp32" and m + r > 5:  # below, the grid of the inputs counts; in other formats errors are no longer small
            assert 0.85 < row["predicted"] / row["measured"] < 1.15


def test_the_time_of_a_search_is_estimated_from_its_sets():
    """Of 20000 sets a unit of all subsets; of a descent 50 n for every eight candidates: n**3 times 40 ns each."""
    descent = {"kind": "descent", "m": 4, "r": 3, "pool": " ".join(["1"] * 24)}
    every = {"kind": "all", "m": 2, "r": 2, "pool": "1 2"}
    assert _seconds([descent]) == pytest.approx(50 * 6 * 3 * 4e-8 * 216)
    assert _seconds([every]) == pytest.approx(20000 * 4e-8 * 27)
    assert _seconds([descent, every, every]) == pytest.approx(_seconds([descent]) + 2 * _seconds([every]))
    assert _seconds([]) == 0
    with _executor(None, 2.99) as none:
        assert none is None
    with ThreadPoolExecutor(1) as given_, _executor(given_, 1e9) as taken:
        assert taken is given_


def test_little_work_stays_in_this_process_and_much_of_it_does_not(monkeypatch):
    monkeypatch.setattr("fastconv.search.points.run._cores", lambda: 2)
    with _executor(None, 3.01) as several:
        assert isinstance(several, ProcessPoolExecutor)
    monkeypatch.setattr("fastconv.search.points.run._cores", lambda: 1)
    with _executor(None, 3.01) as none:
        assert none is None


@pytest.mark.parametrize(("bits", "low", "high"), [(1, 0.1, 9), (2, 0.5, 2), (3, 0.3, 5.5), (4, 0.9, 1.1), (5, 3, 3)])
def test_numbers_of_few_bits_are_all_there(bits, low, high):
    every = {Fraction(k) * Fraction(2) ** e for k in range(1, 2**bits) for e in range(-20, 20)}
    assert few_bits(bits, low, high) == tuple(sorted(p for p in every if low <= p <= high))


@pytest.mark.parametrize("x", [0.7, -0.7, 1.0, 2.9, -0.13])
def test_numbers_near_by_are_within_a_factor(x):
    for height, bits, spread in ((4, 3, 0.1), (7, 2, 0.5), (16, 5, 0.25)):
        options = {Fraction(p, q) for p in range(1, height + 1) for q in range(1, height + 1)}
        options |= {Fraction(k) * Fraction(2) ** e for k in range(1, 2**bits) for e in range(-20, 20)}
        low, high = abs(x) / (1 + spread), abs(x) * (1 + spread)
        wanted = sorted(p for p in options if low <= p <= high)
        assert near(x, height, bits, spread) == tuple(wanted)
        if spread == 0.25:
            close = min(wanted, key=lambda p: abs(np.log(float(p) / abs(x))))
            assert nearest(x, height, bits) == (close if x > 0 else -close)
    assert nearest(0.0101, 20, 1) in (Fraction(1, 64), Fraction(1, 128), Fraction(1, 20), 0)
    assert family(Fraction(2, 3)) == (Fraction(-3, 2), Fraction(-2, 3), Fraction(2, 3), Fraction(3, 2))


@pytest.mark.parametrize("infinity", [True, False])
@pytest.mark.parametrize("stretch", [0.6, 1.0])
def test_starts_are_spread_by_angle(infinity, stretch):
    for k in (3, 4, 6, 7):
        start = projective_start(k, infinity, stretch, 16, 5)
        assert len(start) == k
        assert start == in_order(start)
        assert {-p for p in start} == set(start)
        places = (np.arange(1, k + 1) / (k + 1) if infinity else (np.arange(k) + 0.5) / k) - 0.5
        exact = np.sign(places) * np.abs(np.tan(np.pi * places)) ** stretch
        exact[np.abs(places) < 1e-9] = 0
        assert np.array(sorted(start), float) == pytest.approx(exact, rel=0.06)  # numbers of five bits are as near


def test_random_starts_favour_zero_pairs_and_simple_numbers():
    pool = in_order({Fraction(0), *rationals(6), *(-p for p in rationals(6))})
    starts = [set(random_start(np.random.default_rng(seed), 7, pool)) for seed in range(400)]
    share = lambda test: sum(map(test, starts)) / len(starts)
    assert 0.85 < share(lambda s: 0 in s) < 0.97  # drawn in nine of ten, of the others now and then
    pairs = lambda s: sum(-p in s for p in s if p > 0)
    fours = lambda s: sum({-p, 1 / p, -1 / p} <= s for p in s if p > 1)
    assert 0.6 < share(lambda s: pairs(s) >= 3 - (0 not in s)) < 0.85
    assert 0.2 < share(lambda s: fours(s) >= 1) < 0.6
    assert share(lambda s: 1 in s or -1 in s) > 2 * share(lambda s: Fraction(5, 1) in s or Fraction(-5) in s)
    assert random_start(np.random.default_rng(0), 1, (Fraction(0),)) == (0,)
    assert set(random_start(np.random.default_rng(0), 3, pool[:3])) == set(pool[:3])


def test_what_is_exchanged_together():
    half, two = Fraction(1, 2), Fraction(2)
    assert _blocks([half, -half, two, Fraction(0)]) == [[half], [-half], [two], [Fraction(0)], [half, -half]]
    choices = {half: (half, two), -half: (-two, Fraction(-3))}.get
    assert _options([half], choices) == [(half,), (two,)]
    assert _options([half, -half], choices) == [(half, -half), (two, -two), (Fraction(3), Fraction(-3))]
    assert _signed(two, (half, two)) == (half, two)
    assert _signed(-two, (half, two)) == (-half, -two)


def away(target):
    """An objective: how far the points are from some, in order."""
    return lambda points, infinity: np.abs(np.sort(points, axis=1) - np.sort(target)).sum(axis=1) + 1


def test_the_best_sets_are_kept():
    search = Search(away([0.0]), True, keep=3)
    for k in range(30):
        search.note([Fraction((k * 7) % 30)], float((k * 7) % 30))
        assert len(search._best) <= 12
    search.note([Fraction(-1)], np.inf)
    search.note([Fraction(-2)], np.nan)
    assert search.best() == [((Fraction(k),), float(k)) for k in range(3)]
    assert search.evaluated == 0


def test_exchange_goes_to_the_best_of_the_candidates():
    pool = in_order({s * p for p in rationals(4) for s in (1, -1)} | {Fraction(0)})
    target = (Fraction(-3, 2), Fraction(0), Fraction(1, 4), Fraction(3))
    for seed in range(5):
        search = Search(away(np.array(target, float)), True, keep=5)
        found, value = search.exchange(pool[:4], lambda p: pool, np.random.default_rng(seed))
        assert (found, value) == (in_order(target), 1.0)
        assert search.best()[0] == (in_order(target), 1.0)
        assert search.evaluated > 3 * 4 * len(pool) / 2
        again = Search(away(np.array(target, float)), True)
        assert again.exchange(in_order(target), lambda p: pool, np.random.default_rng(seed))[0] == in_order(target)
        assert again.evaluated == 1 + 2 * 4 * len(pool)  # two rounds without a gain end it


def test_points_move_to_the_optimum_and_back_to_simple_numbers():
    target = np.array([-1.3, 0.0, 0.62, 1.3])
    search = Search(away(target), True)
    start = (Fraction(0), Fraction(1, 2), Fraction(-1), Fraction(1))
    moved = search.continuous(start)
    assert moved[0] == 0
    assert moved[2] == -moved[3]
    assert sorted(moved) == pytest.approx(target, rel=5e-3)
    assert search.evaluated <= 402
    assert Search(away([0.0]), True).continuous((Fraction(0),)) == [0.0]
    points, value = search.polished(start, np.random.default_rng(0), 16, 5)
    assert set(points) == {Fraction(0), Fraction(8, 13), Fraction(13, 10), Fraction(-13, 10)}
    assert value == pytest.approx(1 + 0.62 - 8 / 13)


@pytest.mark.parametrize("policy", ["fp32", "bf16", "mixed", "fp16"])
def test_policies_and_points_are_written_and_read(policy):
    assert policy_from(policy_data(policy)) == policy_named(policy)
    points = (Fraction(-1, 2), Fraction(3))
    assert text_of(points) == "-1/2 3"
    assert points_of("-1/2 3") == points
