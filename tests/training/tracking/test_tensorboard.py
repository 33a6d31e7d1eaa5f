"""Event files, read back with TensorBoard's own reader."""

from collections.abc import Callable

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from athwe_core.runs.run import RunFolder


def test_epochs_results_and_configuration_are_in_the_event_files(
    run: RunFolder, train: Callable[..., list[str]]
) -> None:
    notes = train("tensorboard", range(1, 2), finished=False)
    train("tensorboard", range(2, 3), finished=True)  # resumed
    assert notes == [f"TensorBoard: tensorboard --logdir {run.path / 'tensorboard'}"]
    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    found = {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert found == {
        "loss/ce": [(1, 5.0), (2, 2.5)],
        "loss/total": [(1, 5.0), (2, 2.5)],
        "validation/ndcg_at_10": [(1, 0.125), (2, 0.25)],
        "gradient_norm": [(1, 2.0), (2, 2.0)],
        "seconds": [(1, 3.0), (2, 3.0)],
        "best_validation/ndcg_at_10": [(2, 0.5)],
        "best_test/ndcg_at_10": [(2, 0.25)],
        "best_epoch": [(2, 1.0)],
    }
    (text,) = {each.tensor_proto.string_val[0].decode() for each in events.Tensors("configuration/text_summary")}
    assert "model.hidden_size: 8\n" in text
    assert "data.name: demo\n" in text
