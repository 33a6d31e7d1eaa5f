from typing import Any

import analysis_cases as made
import pytest

from athwe_core.analysis.case_study import sentences

DAY = 86_400


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "same time"),
        (1, "1 second"),
        (59, "59 seconds"),
        (3599, "59 minutes"),
        (3600, "1 hour"),
        (DAY, "1 day"),
        (3 * DAY, "3 days"),
        (60 * DAY, "60 days"),
        (61 * DAY, "2 months"),
        (364 * DAY, "11 months"),
        (365 * DAY, "1 year"),
        (366 * DAY, "1 year"),
        (426 * DAY, "1 year 2 months"),
        (730.5 * DAY, "2 years"),
    ],
)
def test_times_as_people_say_them(seconds: float, words: str) -> None:
    assert sentences.gap_words(seconds) == words


def test_titles_keep_their_direction_to_themselves_and_a_length() -> None:
    assert sentences.quoted("a\u2069 b\n c") == "“\u2068a b c\u2069”"
    assert sentences.quoted("\u202eabc") == "“\u2068\u202eabc\u2069”"
    assert len(sentences.quoted("word " * 100)) <= sentences.LONGEST_TITLE + 4
    assert sentences.name_of({"title": " ", "item_id": "B1"}) == "“\u2068B1\u2069”"


@pytest.mark.parametrize(("rank", "words"), [(4.0, "4"), (4.5, "4.5"), (12345.0, "12,345"), (1234567.5, "1,234,567.5")])
def test_ranks(rank: float, words: str) -> None:
    assert sentences.rank_words(rank) == words


def window(*gaps: int | None) -> list[dict[str, Any]]:
    return [{**made.item(p), "position": p, "gap_seconds": gap} for p, gap in enumerate(gaps)]


class TestSentences:
    def test_influence_names_the_item_and_both_ranks(self) -> None:
        why = made.case(3)["why"][made.RUNS[0]]
        why |= {"rank": 4.0, "influence": [{"position": p, "rank_without": r} for p, r in enumerate((5.0, 57.0, 3.0))]}
        expected = f"Leaving out {sentences.quoted(made.TITLES[1])} moves the true next item from rank 4 to 57."
        assert sentences.influence(why, window(None, 1, 1)) == expected

    def test_a_factor_counts_not_a_difference(self) -> None:
        why = {"rank": 1000.0, "subject": {"is_target": False}}
        why["influence"] = [{"position": 0, "rank_without": 1300.0}, {"position": 1, "rank_without": 100.0}]
        assert "the first recommendation from rank 1,000 to 100" in sentences.influence(why, window(None, 1))
        why["subject"] |= {"is_chosen": True, "item_id": "x", "title": "A drum"}
        assert f"moves {sentences.quoted('A drum')} from rank 1,000" in sentences.influence(why, window(None, 1))

    def test_influence_without_a_change_of_rank_is_one_of_the_score(self) -> None:
        why = {"rank": 4.0, "subject": {"is_target": True}}
        why["influence"] = [
            {"position": p, "rank_without": 4.0, "score_change": change} for p, change in enumerate((0.2, -0.831))
        ]
        assert sentences.influence(why, window(None, 1)) == (
            "Leaving out any one item keeps the true next item at rank 4. "
            f"Its score changes most without {sentences.quoted(made.TITLES[1])}: −0.83."
        )
        assert "one item" in sentences.influence(why | {"influence": []}, window(None))

    def test_temporal_gates_name_the_largest_step_and_its_time(self) -> None:
        gates = [[0.5, 0.5], [0.5, 0.5], [0.1, 0.9]]
        sentence = sentences.temporal_gates(gates, window(None, DAY, 426 * DAY))
        assert "from item 2 to item 3, 1 year 2 months later" in sentence
        assert "expert 1 goes from 0.50 to 0.10" in sentence
        assert sentence.endswith("At the last item expert 2 leads with 0.90; even would be 0.50.")
        assert "hardly change" in sentences.temporal_gates([[0.3, 0.7]] * 2, window(None, DAY))
        alone = "At the last item expert 2 leads with 0.70; even would be 0.50."
        assert sentences.temporal_gates([[0.3, 0.7]], window(None)) == alone

    def test_gates_close_to_even_have_no_leader(self) -> None:
        even = "No expert stands out: every weight is within 10% of the even share, 0.25."
        gates = [[0.26, 0.24, 0.25, 0.25]] * 2
        assert sentences.temporal_gates(gates, window(None, DAY)) == even
        assert sentences.interactive_gates({"id": gates, "text": gates}) == even
        assert sentences.stands_out([[0.28, 0.24, 0.24, 0.24]])
        swapped = {"id": [[0.8, 0.2], [0.2, 0.8]]}
        assert sentences.interactive_gates(swapped) == (
            "No expert stands out on average over the items; even would be 0.50."
        )

    def test_numbers_of_items_follow_the_history_not_the_window(self) -> None:
        later = [item | {"position": item["position"] + 5} for item in window(None, DAY)]
        assert "from item 6 to item 7" in sentences.temporal_gates([[1.0, 0.0], [0.0, 1.0]], later)
        assert "item 7" in sentences.attention({"id": [[0.1, 0.9]]}, later)

    def test_attention(self) -> None:
        sentence = sentences.attention(
            {"id": [[0.8, 0.2], [0.6, 0.4]], "text": [[0.4, 0.6], [0.6, 0.4]]}, window(None, 1)
        )
        assert sentence.startswith(f"Most attention, 60%, goes to item 1, {sentences.quoted(made.TITLES[0])}")
        assert sentence.endswith("The last item gets 40%.")
        assert "which gets all attention" in sentences.attention({"id": [[1.0]]}, window(None))

    def test_attention_parts(self) -> None:
        parts = {"id": [[0.8, 0.2], [0.4, 0.6]], "brand": [[0.1, 0.9], [0.3, 0.7]]}
        assert (
            sentences.attention_parts(parts, window(None, 1))
            == "Each part alone: id attends most to item 1 (60%), brand attends most to item 2 (80%)."
        )
        assert "which gets all attention" in sentences.attention_parts({"id": [[1.0]]}, window(None))

    def test_interactive_gates(self) -> None:
        gates = {"id": [[0.2, 0.8]], "text": [[0.6, 0.4]]}
        assert (
            sentences.interactive_gates(gates)
            == "The largest mean weights: expert 2 in id (0.80), expert 1 in text (0.60); even would be 0.50."
        )
        assert "All modalities" in sentences.interactive_gates({"id": [[0.2, 0.8]], "text": [[0.3, 0.7]]})

    def test_band_energy(self) -> None:
        energy = {"bands": ["low", "high 1"], "share": {"id": [0.9, 0.1], "text": [0.4, 0.6]}}
        assert (
            sentences.band_energy(energy) == "The low band holds 90% of the energy of id and 40% of the energy of text."
        )
        assert (
            sentences.band_energy(energy | {"share": {"id": [0.9, 0.1]}})
            == "90% of the energy of id is in the low band."
        )

    def test_gaps(self) -> None:
        base = {"rank": 4.0, "kept": 10, "label": "as it was"}
        why = {"subject": {"is_target": True}, "gaps": [base, base | {"label": "one year", "rank": 9.0, "kept": 7}]}
        sentence = "After one year the true next item would have rank 9 instead of 4, and 7 of the top 10 would stay."
        assert sentences.gaps(why, k=10) == sentence
        why["gaps"][1]["rank"] = 4.0
        assert sentences.gaps(why, k=10) == (
            "No other gap changes rank 4 of the true next item. After one year 7 of the top 10 would stay."
        )
        assert "no gap" in sentences.gaps(why | {"gaps": []}, k=10)

    def test_score(self) -> None:
        assert sentences.score({"score": 5.0, "by_modality": {"id": 4.0, "text": 2.0, "image": -1.0}}) == (
            "Its score of 5.00 is id +4.00, text +2.00, image −1.00; id contributes most."
        )
        assert sentences.score({"score": 5.0, "by_modality": {"id": 5.0}}) == "Its score of 5.00 comes from id alone."
        assert sentences.score({"score": -5.0, "by_modality": {}}) == "Its score is −5.00."


def test_counts_and_runs_in_words() -> None:
    assert sentences.counted(1, "item") == "1 item"
    assert sentences.counted(1204, "item") == "1,204 items"
    assert sentences.run_label("demo/athwe/first") == "athwe/first"
    ranks = {"demo/athwe/first": 3.0, "demo/hm4sr/second": 312.5}
    assert sentences.ranks_by_run(ranks) == "rank 3 by athwe/first, rank 312.5 by hm4sr/second"


def test_ranks_are_as_far_apart_as_their_factor() -> None:
    assert sentences.rank_distance(4, 40) == pytest.approx(sentences.rank_distance(1000, 100))
    assert sentences.rank_distance(7, 7) == 0
