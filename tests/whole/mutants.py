"""Small faults, planted one at a time: do the tests notice? `make mutants` tells, in minutes.

Each line of MUTANTS below changes one place of `lib` into something wrong that still runs, and names the tests of
which one must fail then. They run on a copy, and stop at the first failure. A fault that none of them notices is a gap
in the tests.
"""

import argparse
import importlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("lib", "tests", "notebooks", "batches", "data", "results/nets", "results/kept", "pyproject.toml", "Makefile")
LIMIT = 300  # seconds; tests that a fault keeps from ending have noticed it
LARGE = ("torch", "torchvision", "torchmetrics", "captum.attr", "sklearn.svm", "scipy.stats", "pandas", "papermill")
FORK = multiprocessing.get_context("fork")  # what is large is imported once, before processes fork off


@dataclass(frozen=True)
class Mutant:
    """A fault: in `file` of lib, `old` (which stands there once) becomes `new`; one of `tests` must fail."""

    file: str
    old: str
    new: str
    tests: str  # below tests/, separated by spaces, as pytest takes them

    def plant(self, root: Path) -> str:
        """Put the fault into a copy; return the text without it. Raises ValueError unless `old` is there once."""
        path = root / "lib" / self.file
        text = path.read_text()
        if (times := text.count(self.old)) != 1:
            raise ValueError(f"lib/{self.file} has {self.old!r} {times} times, not once: mend the list of mutants")
        path.write_text(text.replace(self.old, self.new))
        return text


# fmt: off
MUTANTS = [
    # study: chance, names of runs, manifests, records
    Mutant("study/chance.py", "SeedSequence([seed, *words])", "SeedSequence([seed, len(words)])",
           "study/test_chance.py::test_streams_of_one_seed_and_of_neighbouring_seeds_share_nothing"),
    Mutant("study/chance.py", "zlib.crc32(repr(part).encode())", "zlib.adler32(repr(part).encode())",
           "study/test_chance.py::test_a_stream_is_the_same_on_every_machine"),
    Mutant("study/chance.py", "stats.t.ppf(0.975, len(values) - 1)", "stats.norm.ppf(0.975)",
           "study/test_chance.py::test_mean_is_scipys_t_interval"),
    Mutant("study/chance.py", "equal_var=False", "equal_var=True",
           "study/test_chance.py::test_difference_written_out"),
    Mutant("study/chance.py", 'method="wilson"', 'method="exact"',
           "study/test_chance.py::test_share_written_out"),
    Mutant("study/identity.py",
           "for name, value in values.items() if value != source.defaults[name]}", "for name, value in values.items()}",
           "study/test_identity.py"),
    Mutant("study/identity.py", 'manifest.of_net(values.get(name))', '""',
           "study/test_identity.py::test_the_name_holds_the_content_of_images_and_nets"),
    Mutant("study/identity.py",
           "{name: of_images(value) or manifest.of_table(value) for name, value in values.items()}", "{}",
           "study/test_identity.py::test_the_name_holds_the_content_of_images_and_nets"),
    Mutant("study/identity.py", 'told["after"] = " ".join(sorted(upstream))', "pass",
           "study/test_identity.py::test_a_run_is_named_after_what_it_depends_on"),
    Mutant("study/identity.py", 'told["precision found"] = found', "pass",
           "study/test_identity.py::test_the_precision_found_is_part_of_the_name"),
    Mutant("study/identity.py", "if number != 1}", "if number > 2}",
           "study/test_identity.py"),
    Mutant("study/syntax.py", "node = node.exc.func if isinstance(node.exc, ast.Call) else node.exc", "node = node.exc",
           "study/test_identity.py::test_what_an_edit_costs"),
    Mutant("study/syntax.py",
           'QUIET |= {"lib.look.figures"}', 'QUIET |= {"lib.look.figures", "lib.gan.selection", "lib.gan.train"}',
           "study/test_identity.py"),
    Mutant("study/manifest.py", 'unicodedata.normalize("NFC", name).encode', "name.encode",
           "study/test_manifest.py::test_names_are_the_same_composed_and_decomposed"),
    Mutant("study/manifest.py", "SETTLED = 2 * 10**9", "SETTLED = -(10**12)",
           "study/test_manifest.py::test_a_file_that_may_still_change_is_read_again"),
    Mutant("study/runs.py",
           'name = "finished.json" if "STUDY_PLAN" in os.environ else "metrics.json"', 'name = "metrics.json"',
           "study/test_runs.py::test_a_row_is_run_as_planned"),
    Mutant("study/runs.py", 'device_name(run.parameters.get("device", "cpu"))', "device_name()",
           "study/test_runs.py::test_the_record_names_what_computed"),
    Mutant("study/records.py", 'head + "+" * bool(changed)', "head",
           "study/test_runs.py::test_the_commit_tells_that_files_differ_from_it"),
    # images: what comes in, as what
    Mutant("images/data.py", "div_(127.5).sub_(1)", "div_(128).sub_(1)",
           "images/test_data.py::test_scaling_is_exact_and_inverted"),
    Mutant("images/data.py", "(self.y != UNLABELLED).nonzero()", "(self.y >= UNLABELLED).nonzero()",
           "images/test_data.py::test_unlabelled_images_are_left_out_and_counted"),
    Mutant("images/data.py", 'rows.astype("<i8").tobytes()', 'b""',
           "images/test_data.py::test_checksum_is_of_the_images"),
    Mutant("images/data.py", "if word in wanted[:i]:", "if False:",
           "images/test_data.py::test_a_missing_split_lists_those_there_are"),
    Mutant("images/data.py", 'chance.stream(seed, "hold-out")', "0",
           "gan/test_health.py::test_rows_are_held_out_once_and_at_random"),
    Mutant("images/data.py", "np.arange(limit) * len(rows) // limit", "np.arange(limit)",
           "images/test_data.py::test_a_limit_is_a_fair_sample"),
    Mutant("images/pictures.py", "image = ImageOps.exif_transpose(image)", "pass",
           "images/test_packing.py::test_a_camera_that_was_turned"),
    Mutant("images/pictures.py", 'image.size, "white")', "image.size)",
           "images/test_packing.py::test_transparency_is_laid_on_white"),
    Mutant("images/packing.py", "2**bits - 1", "2**16 - 1",
           "images/test_packing.py::test_grey_is_scaled_from_the_bits_that_the_set_fills"),
    Mutant("images/pictures.py", "((side - size) // 2 for side in image.size)", "(0, 0)",
           "images/test_packing.py::test_a_centre_is_cut_out_and_nothing_resized"),
    Mutant("images/pictures.py", "Image.Resampling.BICUBIC", "Image.Resampling.BILINEAR",
           "images/test_packing.py::test_an_edge_is_resized_by_cubic_curves"),
    Mutant("images/labels.py", '("train", "training", "trn")', '("train", "trn")',
           "images/test_labels.py::test_spellings_of_a_split"),
    Mutant("images/labels.py", "if looks and others:", "if False:",
           "images/test_labels.py::test_trees_that_could_be_read_in_two_ways"),
    Mutant("images/labels.py", "if line and len(line) != len(header):", "if False:",
           "images/test_labels.py::test_tables_that_are_refused"),
    Mutant("images/labels.py", 'learned = [c for split, c, _ in keys if split == "train"] or [', "learned = [",
           "images/test_labels.py::test_classes_are_numbered_by_train"),
    # nets: architectures, order, statistics
    Mutant("nets/models.py", "nn.LeakyReLU(0.2, inplace=True)", "nn.LeakyReLU(0.1, inplace=True)",
           "nets/test_models.py::test_the_guidelines"),
    Mutant("nets/models.py", "SPREAD = 0.02", "SPREAD = 0.05",
           "nets/test_models.py::test_initialisation"),
    Mutant("nets/models.py", "guideline=bool(layers)", "guideline=True",
           "nets/test_models.py"),
    Mutant("nets/models.py", 'chance.stream(seed, "weights", name)', 'chance.stream(seed, "weights")',
           "nets/test_models.py::test_weights_share_nothing_with_z_nor_g_with_d"),
    Mutant("nets/models.py", "device=generator.device) * 2 - 1", "device=generator.device)",
           "nets/test_models.py::test_priors"),
    Mutant("images/data.py", 'chance.stream(seed, "order", epoch)', 'chance.stream(0, "order", epoch)',
           "images/test_minibatches.py"),
    Mutant("images/data.py", "[first : first + batch_size].sort().values", "[first : first + batch_size]",
           "images/test_minibatches.py"),
    Mutant("nets/batchnorm.py", "* (n - 1) / n", "",
           "probe/test_features.py::test_statistics_of_D_are_means_over_minibatches_of_biased_ones"),
    Mutant("nets/batchnorm.py", "[:MOST]", "",
           "nets/test_batchnorm.py::test_a_hundred_minibatches_are_enough"),
    Mutant("nets/batchnorm.py", ".permutation(n)", ".permutation(1).repeat(n) + np.arange(n)",
           "nets/test_batchnorm.py::test_the_order_of_rows_is_not_taken_for_chance"),
    Mutant("nets/batchnorm.py", 'getattr(net, "activations", net)', "net",
           "probe/test_features.py nets/test_authors.py"),
    Mutant("nets/weights.py", "digest.update(value.reshape(-1).view(torch.uint8).numpy())", "pass",
           "nets/test_weights.py::test_a_flipped_bit_is_found_wherever_it_is"),
    Mutant("nets/devices.py", "torch.bfloat16", "torch.float16",
           "nets/test_devices.py"),
    Mutant("images/data.py", 'stream(seed, "order", epoch)', 'stream(seed, "order")',
           "images/test_minibatches.py"),
    Mutant("nets/batchnorm.py", "shuffled(len(x))", "np.arange(len(x))",
           "nets/test_batchnorm.py"),
    Mutant("nets/devices.py", "map(str, range(count[kind]))", "index",
           "nets/test_devices.py"),
    # gan: the game, the training, the choice of a snapshot
    Mutant("gan/game.py", "(on_fake, torch.ones_like(on_fake))", "(on_fake, torch.zeros_like(on_fake))",
           "gan/test_train.py::test_the_fast_path_is_the_plain_loop"),
    Mutant("gan/game.py", "(s.beta1, 0.999)", "(s.beta1, 0.99)",
           "gan/test_train.py::test_the_fast_path_is_the_plain_loop"),
    Mutant("gan/game.py", '(s.seed, "z", "training")', '(s.seed, "z", "fixed")',
           "gan/test_train.py::test_one_seed_gives_each_purpose_numbers_of_its_own"),
    Mutant("gan/game.py", '[("D",), ("G",)]', '[("D",), ("D", "G")]',
           "gan/test_train.py::test_alternation_updates_one_net_at_a_time"),
    Mutant("gan/game.py",
           "on_real, on_fake = (self.D(x).float() for x in (real.requires_grad_(self.settings.r1 > 0), fake))",
           "on_real, on_fake = self.D(torch.cat([real, fake])).float().chunk(2)",
           "gan/test_train.py::test_the_fast_path_is_the_plain_loop"),
    Mutant("gan/game.py", "side // 8", "side // 4",
           "gan/test_game.py::test_shift_moves_by_up_to_an_eighth_and_brings_zeros_in"),
    Mutant("gan/game.py", "self.D(self._augmented(fake))", "self.D(fake)",
           "gan/test_game.py::test_real_images_and_samples_are_changed_alike_and_g_learns_through_it"),
    Mutant("gan/game.py", "on_real, self.settings.real_label", "on_real, 1.0",
           "gan/test_game.py::test_one_sided_labels_by_hand"),
    Mutant("gan/game.py", "* min(1, left)", "* left",
           "gan/test_game.py::test_the_rate_falls_over_the_last_share"),
    Mutant("gan/game.py", "s.lr * s.D_rate", "s.lr / s.D_rate",
           "gan/test_game.py::test_ds_rate_moves_d_by_so_much"),
    Mutant("gan/game.py", "self.settings.noise * (1 - self.step / self.total)", "self.settings.noise",
           "gan/test_game.py::test_noise_falls_to_nothing"),
    Mutant("gan/game.py", "self.settings.r1 / 2 *", "self.settings.r1 *",
           "gan/test_game.py::test_r1_adds_half_its_weight_times_the_steepness"),
    Mutant("gan/acceleration.py", "save_for_backward(x, weight)", "save_for_backward(x, weight.bfloat16())",
           "gan/test_acceleration.py::test_second_derivatives_are_autograds"),
    Mutant("gan/selection.py", ".mean(0))", ".amax(0))",
           "gan/test_health.py::test_ds_weights_are_averaged_over_snapshots"),
    Mutant("nets/weights.py", "requires_grad_(not frozen)", "requires_grad_()",
           "gan/test_game.py::test_d_starts_from_anothers_convolutions"),
    Mutant("gan/train.py",
           "[*departs, images.checksum, chosen, snapshots, versions, *net]",
           "[*departs, chosen, snapshots, versions, *net]",
           "gan/test_train.py::test_a_folder_is_of_one_training"),
    Mutant("gan/train.py", "snapshots, versions, *net]", "snapshots, *net]",
           "gan/test_train.py::test_a_training_is_another_where_its_code_says_so"),
    Mutant("gan/train.py",
           'training.step, training.seconds = record["step"], record["seconds"]', 'training.step = record["step"]',
           "gan/test_train.py::test_a_stopped_training_resumes_to_the_bit"),
    Mutant("gan/train.py", "dict(sorted(found.items()))", "dict(sorted(found.items(), key=lambda item: str(item[0])))",
           "gan/test_train.py::test_snapshots_come_in_the_order_of_their_steps"),
    Mutant("gan/checkpoints.py", "KEPT = 2", "KEPT = 1",
           "gan/test_train.py::test_a_damaged_checkpoint_gives_way_to_the_one_before"),
    Mutant("gan/diagnostics.py",
           "copy.deepcopy(G).train(), copy.deepcopy(D).train()  # running",
           "copy.deepcopy(G).eval(), copy.deepcopy(D).eval()  # running",
           "gan/test_health.py::test_health_is_measured_in_batch_statistics"),
    Mutant("gan/diagnostics.py", "rolling(2).min()", "rolling(2).max()",
           "gan/test_health.py::test_signs_of_failure"),
    Mutant("gan/selection.py", "metric.reset()", "pass",
           "gan/test_health.py::test_each_snapshot_is_compared_by_itself"),
    Mutant("gan/selection.py", "[y[y != UNLABELLED]].numpy()", "[0 * y[y != UNLABELLED]].numpy()",
           "gan/test_health.py::test_the_extractor_learns_the_labels_it_is_given"),
    Mutant("gan/selection.py", "batchnorm.recalibrate_batchnorm(random.body, some.x[:1280])", "random.body.eval()",
           "gan/test_health.py::test_the_extractor_learns_the_labels_it_is_given"),
    Mutant("gan/selection.py", "if len(held_out) < LEAST *", "if len(held_out) < 0 *",
           "gan/test_health.py::test_a_handful_of_images_ranks_nothing"),
    Mutant("gan/selection.py", "distances.idxmin()", "distances.idxmax()",
           "gan/test_health.py::test_the_earliest_of_the_nearest_is_chosen"),
    Mutant("gan/conditional.py", "settings.lr * min(1, 2 - 2 * step / total)", "settings.lr",
           "gan/test_conditional.py::test_the_learning_rate_falls_over_the_second_half"),
    # probe: the classifier and its protocol
    Mutant("probe/l2svm.py", "PAPER_CS = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2)", "PAPER_CS = (1e-4, 1e-2)",
           "probe/test_probe.py"),
    Mutant("probe/newton.py", "0.5 * W.square().sum(1)", "0.5 * W[:, :-1].square().sum(1)",
           "probe/test_probe.py::test_objective_and_predictions_agree_with_liblinear"),
    Mutant("probe/protocol.py", "table.accuracy.idxmax()", "table.accuracy.idxmin()",
           "probe/test_probe.py::test_C_is_chosen_on_images_set_apart"),
    Mutant("probe/protocol.py", "axis=0).argmax())", "axis=0).argmin())",
           "probe/test_probe.py::test_one_C_serves_all_draws_the_best_on_the_images_set_apart"),
    Mutant("probe/protocol.py", "rows + version * len(y)", "rows",
           "probe/test_probe.py::test_a_drawn_image_is_learned_from_in_all_its_versions"),
    Mutant("probe/protocol.py", 'chance.stream(seed, "draw", draw)', 'chance.stream(seed + draw, "draw")',
           "probe/test_probe.py::test_draws_of_neighbouring_seeds_are_other_draws"),
    Mutant("probe/protocol.py", "(y_pred == y_true).low <= guessed", "(y_pred == y_true).mean == guessed",
           "probe/test_probe.py::test_degenerate_classifiers_are_recognised"),
    Mutant("probe/splits.py", "stratify=learn.y", "stratify=None",
           "probe/test_splits.py::test_images_set_apart_come_last_class_by_class_and_are_nobody_elses"),
    Mutant("probe/splits.py", "parts[0], left_out)", "slice(0, len(learn)), left_out)",
           "probe/test_splits.py"),
    Mutant("probe/features.py", "F.adaptive_max_pool2d", "F.adaptive_avg_pool2d",
           "probe/test_pooling.py::test_the_answer_written_out"),
    Mutant("probe/features.py", "require_fit(x, description.shape)", "pass",
           "probe/test_features.py::test_errors_are_one_line"),
    Mutant("probe/features.py", "F.max_pool2d(h, window, stride)", "F.max_pool2d(h, window)",
           "probe/test_features.py::test_windows_overlap_and_the_last_layer_is_left_out"),
    Mutant("probe/splits.py", "np.abs(mean - EXACT).max() < 1e-6", "np.abs(mean - EXACT).max() < 1e-2",
           "probe/test_splits.py::test_exact_images_and_other_sets_are_no_copies"),
    Mutant("probe/splits.py", "(?P<who>.+) minus (?P=who), ", "(?P<who>.+) minus .+, ",
           "probe/test_splits.py::test_a_copy_of_cifar10_that_is_not_exact_is_said_with_its_cost"),
    Mutant("probe/kmeans.py", "+ 10).sqrt()", "+ 1).sqrt()",
           "probe/test_baselines.py::test_patches_are_cut_from_the_images_and_normalised"),
    # internals: walks, sums, filters, forgetting, memorisation
    Mutant("internals/latent.py", "direction * torch.lerp(norm_a, norm_b, t)", "direction * norm_a",
           "internals/test_latent.py::test_slerp_goes_evenly_from_one_length_to_the_other"),
    Mutant("internals/latent.py", "lengths.amax(1) / usual", "lengths.mean(1) / usual",
           "internals/test_latent.py::test_jumps_written_out"),
    Mutant("internals/latent.py", "a.mean(0) - b.mean(0) + c.mean(0)", "a.mean(0) + b.mean(0) - c.mean(0)",
           "internals/test_latent.py::test_arithmetic_written_out"),
    Mutant("internals/attributes.py", "belief[name] < 1 - sure", "belief[name] < sure",
           "internals/test_attributes.py::test_exemplars_written_out"),
    Mutant("internals/attribution.py", "gradient * positive if", "gradient if",
           "internals/test_attribution.py::test_truth_table"),
    Mutant("internals/attribution.py", "gradient = gradient.clamp(min=0)", "pass",
           "internals/test_attribution.py::test_truth_table"),
    Mutant("internals/attribution.py", '("hidden", D.hidden), ', "",
           "internals/test_sanity.py::test_all_of_D_is_random_in_the_end_its_hidden_layer_too"),
    Mutant("internals/memorisation.py", "augment=lambda codes: recall(G, codes, generator)", "augment=None",
           "internals/test_memorisation.py::test_a_memorised_image_fills_a_region_and_not_a_point "
           "internals/test_memorisation.py::test_the_control_memorises"),
    Mutant("internals/memorisation.py",
           'method="percentile", rng=rng', 'method="percentile", rng=rng, confidence_level=0.5',
           "internals/test_memorisation.py::test_the_interval_of_a_ratio_is_one_of_95_percent"),
    Mutant("internals/memorisation.py",
           "found = torch.where(near < distances, part[row], found)",
           "found = torch.where(near < distances, row, found)",
           "internals/test_memorisation.py::test_neighbours_are_scikit_learns"),
    Mutant("internals/dedup.py", "self.centre(x), 0.2", "self.centre(x), 0.0",
           "internals/test_dedup.py::test_a_fifth_of_the_pixels_and_half_of_the_code_are_dropped_while_it_learns"),
    Mutant("internals/dedup.py", "self.encode(noisy), 0.5", "self.encode(noisy), 0.0",
           "internals/test_dedup.py::test_a_fifth_of_the_pixels_and_half_of_the_code_are_dropped_while_it_learns"),
    Mutant("internals/dedup.py",
           "for part in x.split(PART)) / len(x)", "for part in x[: PART].split(PART)) / min(PART, len(x))",
           "internals/test_dedup.py::test_the_mean_is_that_of_all_images_whatever_their_order"),
    Mutant("internals/forgetting.py", "grid).flatten(1) > 0.5", "grid).flatten(1) > 0",
           "internals/test_forgetting.py::test_a_position_is_inside_where_more_than_half_of_it_is_covered"),
    Mutant("internals/forgetting.py", "LEAST = 9", "LEAST = 1",
           "internals/test_forgetting.py::test_nine_pixels_are_an_object_at_32_and_fewer_are_not"),
    # look: verdicts and pages
    Mutant("look/verdicts.py", "(high < bound, low >= bound)", "(low < bound, high >= bound)",
           "look/test_verdicts.py::test_sides"),
    Mutant("look/verdicts.py", "-bound <= low and high <= bound", "low <= bound and high >= -bound",
           "look/test_verdicts.py::test_a_figure_is_met_on_both_sides"),
    Mutant("look/verdicts.py", "if second and _images(a) != _images(b):", "if False:",
           "look/test_verdicts.py::test_numbers_of_other_images_are_not_compared"),
    Mutant("look/verdicts.py", "    if planted.rows:", "    if False:",
           "look/test_verdicts.py::test_a_planted_failure_from_elsewhere_disqualifies_all"),
    Mutant("look/verdicts.py", "LEAST_DRAWS = 5", "LEAST_DRAWS = 2",
           "look/test_verdicts.py"),
    Mutant("look/pages.py", "lambda _, named=named: named", "named",
           "look/test_report.py::test_mathematics_and_backslashes_stand_under_figures_too"),
    # engine: batch files, cards, rows
    Mutant("engine/rows.py", 'YAML(typ="safe", pure=True).load(', '__import__("yaml").safe_load(',
           "engine/test_rules.py::test_numbers_that_mean_what_they_say"),
    Mutant("engine/rows.py", 'return f"{path.stem}-{', 'return path.stem or f"{',
           "engine/test_batch.py::test_two_files_of_one_name_are_two_batches"),
    Mutant("engine/places.py", "found.st_uid != os.getuid()", "found.st_uid != found.st_uid",
           "engine/test_places.py::test_a_folder_of_leases_that_another_user_made_is_refused"),
    Mutant("engine/places.py", "and mb <= memory()", "",
           "engine/test_places.py::test_rows_share_cores_and_memory"),
    Mutant("engine/places.py",
           "key=lambda item: (leased[item[0]] / max(item[1], 1), item[1])", "key=lambda item: -leased[item[0]]",
           "engine/test_places.py::test_small_runs_are_spread_and_then_share_a_card_by_memory"),
]
# fmt: on


def copy(target: Path) -> Path:
    """Copy what tests need to a folder in which faults can be planted."""
    for name in COPIED:
        source = ROOT / name
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__", "packed", "downloads"))
        else:
            shutil.copy(source, target / name)
    (target / "tmp").mkdir()
    for words in ("init", "add .", "-c user.name=me -c user.email=me commit -m all"):  # tests look at the commit
        subprocess.run(["git", "-C", target, *words.split()], check=True, capture_output=True)
    return target


def run_tests(root: Path, tests: list[str]) -> tuple[int, str]:
    """Run tests on a copy in a process of their own; return pytest's exit code (-1: no end) and what it said."""
    process = FORK.Process(target=_pytest, args=(root, tests))
    process.start()
    process.join(LIMIT)
    code = -1 if process.exitcode is None else process.exitcode
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # and what it left running
    process.join()
    return code, (root / "log").read_text()


def _pytest(root: Path, tests: list[str]) -> None:
    os.setsid()
    os.chdir(root)
    for name in [name for name in os.environ if name.startswith("STUDY_")]:
        del os.environ[name]
    os.environ |= {"PYTHONPATH": str(root), "TMPDIR": str(root / "tmp"), "OMP_NUM_THREADS": "1"}
    tempfile.tempdir, sys.path[0] = None, str(root)
    sys.dont_write_bytecode = True  # a fault of the same length, planted in the same second, would run as it was before
    with (root / "log").open("w") as log, redirect_stdout(log), redirect_stderr(log):
        import pytest

        options = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:nbval"]
        code = int(pytest.main([*options, *(f"tests/{test}" for test in tests)]))
    from lib.study import paths

    os._exit(code if Path(paths.__file__).is_relative_to(root) else 99)


def judge(folder: Path, mutant: Mutant) -> str:
    """Plant one fault and say whether its tests caught it. Raises RuntimeError where they could not be run."""
    root = folder / str(os.getpid())  # each worker's own copy
    if not root.exists():
        copy(root)
    text = mutant.plant(root)
    code, said = run_tests(root, mutant.tests.split())
    (root / "lib" / mutant.file).write_text(text)
    if code not in (-1, 0, 1):
        raise RuntimeError(f"{mutant}: pytest ended with {code}\n{said[-3000:]}")
    return "survived" if code == 0 else "caught"


def main() -> int:
    """Check the list and its tests, plant every fault, print what came of it; return 1 where one survived."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__.splitlines()[0])
    parser.add_argument("only", nargs="*", help="faults in these rooms or files of lib alone, such as probe")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if mutant.file.startswith(tuple(given.only) or "")]
    for name in LARGE:
        importlib.import_module(name)
    began, survived = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as folder:
        whole = copy(Path(folder, "whole"))
        for mutant in chosen:
            (whole / "lib" / mutant.file).write_text(mutant.plant(whole))
        code, said = run_tests(whole, sorted({test for mutant in chosen for test in mutant.tests.split()}))
        if code:
            sys.exit(f"error: the tests fail without any fault, too:\n{said[-3000:]}")
        with ProcessPoolExecutor(given.jobs, mp_context=FORK) as pool:
            for mutant, came in zip(chosen, pool.map(partial(judge, Path(folder)), chosen), strict=True):
                survived += came == "survived"
                print(f"{came:9} lib/{mutant.file}: {mutant.old!r} -> {mutant.new!r}", flush=True)
    print(f"{len(chosen) - survived} of {len(chosen)} caught in {time.monotonic() - began:.0f} s")
    return int(survived > 0)


if __name__ == "__main__":
    sys.exit(main())
