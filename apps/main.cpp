// The program `limbeck`: one binary, one verb per job. This file parses arguments and turns exceptions into exit codes.
#include <CLI/CLI.hpp>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <functional>
#include <new>
#include <utility>
#include <vector>

#include "apps/cli.h"
#include "core/log.h"
#include "core/nearest_word.h"
#include "core/parallel.h"

namespace {

using namespace limbeck;
using namespace limbeck::apps;

// A verb takes the options that mean something to it, and no others.
void add_config(CLI::App& verb, CommonArgs& args) {
  verb.add_option("-c,--config", args.config, "configuration file (YAML); see `limbeck init-config`");
}

void add_json(CLI::App& verb, CommonArgs& args) {
  verb.add_flag("--json", args.json, "print results as JSON on stdout");
}

void add_device(CLI::App& verb, std::string& device) {
  verb.add_option("--device", device, "cpu, or cuda:N in a build with CUDA")->capture_default_str();
}

void add_results(CLI::App& verb, CommonArgs& args, const char* out = "output folder") {
  verb.add_option("-o,--out", args.out, out);
  add_json(verb, args);
}

void add_seed(CLI::App& verb, CommonArgs& args) {
  verb.add_option("--seed", args.seed, "seed of weights, order and augmentation")->check(CLI::NonNegativeNumber);
}

void add_overrides(CLI::App& verb, CommonArgs& args) {
  verb.add_option("overrides", args.overrides, "KEY=VALUE: replaces values of the configuration, e.g. train.lr=0.02");
}

void add_network(CLI::App& verb, NetworkArgs& args) {
  verb.add_option("--classes", args.classes, "number of classes")->check(CLI::Range(1, 65536));
  verb.add_option("--output-stride", args.output_stride, "4, 8, 16 or 32; any fits the same weights")
      ->capture_default_str();
  verb.add_option("--width", args.width, "width multiplier of MobileNets")->capture_default_str();
  verb.add_option("--width-divisor", args.width_divisor, "their channels are multiples of it (1: TensorFlow's DeepLab)")
      ->capture_default_str();
  verb.add_option("--variant", args.variant, "published form of the head, see models/README.md");
  verb.add_option("--stem", args.stem, "first layers of a ResNet: 7x7, deep128, deep128_floor or v1c");
  verb.add_option("--dilation", args.dilation, "dilation pattern: tv, v1b, mmseg, td or jf");
  verb.add_option("--padding", args.padding, "of MobileNetV2: depthwise or before_expansion");
  verb.add_flag("--aux", args.aux, "with auxiliary head");
  verb.add_flag("--separable", args.separable, "DeepLab heads with separable convolutions");
  verb.add_option("--aspp-rates", args.aspp_rates, "of DeepLab heads, e.g. 12,24,36 (default: by output stride)")
      ->delimiter(',')
      ->expected(3);
}

void add_protocol(CLI::App& verb, ProtocolArgs& args) {
  verb.add_option("--scales", args.scales, "several input scales, e.g. 0.75,1,1.25; class probabilities are averaged");
  verb.add_flag("--flip", args.flip, "mirrored as well");
  verb.add_option("--tile", args.tile, "sliding window HxW, for pictures of any size in bounded memory");
  verb.add_option("--overlap", args.overlap, "pixels that neighbouring tiles share (default: a quarter of the tile)");
}

/// One line that says what is wrong, with the likely word behind a typing mistake, and where to look.
std::string usage_message(const CLI::App* app, const CLI::Error& error) {
  const auto chosen = app->get_subcommands();
  const CLI::App* verb = chosen.empty() ? nullptr : chosen.front();
  std::string text = error.what();
  const std::vector<std::string> rest = app->remaining(true);
  // A mistyped option is also a missing one: the word that was given says more than the one that was not.
  const auto is = [&](CLI::ExitCodes code) { return error.get_exit_code() == static_cast<int>(code); };
  if (!rest.empty() && (is(CLI::ExitCodes::ExtrasError) || is(CLI::ExitCodes::RequiredError))) {
    const std::string word = rest.front().substr(0, rest.front().find('='));
    const bool option = word.starts_with('-');
    std::vector<std::string> known;
    if (option) {
      for (const CLI::App* part : {app, verb}) {
        if (part == nullptr) continue;
        for (const CLI::Option* o : part->get_options()) {
          for (const std::string& name : o->get_lnames()) known.push_back("--" + name);
        }
      }
    } else if (verb == nullptr) {
      for (const CLI::App* v : app->get_subcommands([](const CLI::App*) { return true; }))
        known.push_back(v->get_name());
    }
    const std::string likely = nearest_word(word, known);
    text = fmt::format("{} '{}'{}",
                       option            ? "unknown option"
                       : verb == nullptr ? "unknown verb"
                                         : "unexpected argument",
                       word, likely.empty() ? "" : ", did you mean '" + likely + "'?");
  } else if (verb == nullptr && is(CLI::ExitCodes::RequiredError)) {
    text = "a verb is missing, e.g. `limbeck train`";
  }
  return fmt::format("error: {}\n`limbeck{} --help` lists what there is\n", text,
                     verb == nullptr ? "" : " " + verb->get_name());
}

/// What each verb does once all arguments are known. The arguments are those of run(), which outlive it.
using Verbs = std::vector<std::pair<CLI::App*, std::function<int()>>>;

void add_training(CLI::App& app, Verbs& verbs, TrainArgs& train) {
  const auto add = [&](const char* name, const char* text, int (*action)(const TrainArgs&)) {
    auto* verb = app.add_subcommand(name, text);
    add_config(*verb, train);
    add_device(*verb, train.device);
    add_results(*verb, train);
    add_seed(*verb, train);
    add_overrides(*verb, train);
    verb->add_flag("--force", train.force, "replace an existing run folder");
    verbs.emplace_back(verb, [&train, action] { return action(train); });
    return verb;
  };
  const auto add_resumable = [&](const char* name, const char* text, int (*action)(const TrainArgs&)) {
    add(name, text, action)
        ->add_flag("--resume", train.resume, "continue the run in --out from its newest checkpoint, bit for bit");
  };
  add_resumable("train", "train a network (a teacher, or a student alone)", run_train);
  add_resumable("autoencoder", "train the feature autoencoder of knowledge adaptation on a frozen teacher",
                run_autoencoder);
  add_resumable("distill", "train a student from a frozen teacher", run_distill);
  add("run", "run the stages of one file; started again, it goes on where it stopped", run_stages);
}

void add_ablate(CLI::App& app, Verbs& verbs, AblateArgs& ablate) {
  auto* ablate_verb = app.add_subcommand("ablate", "compare distillation methods: same student, data order and seeds");
  add_config(*ablate_verb, ablate);
  add_device(*ablate_verb, ablate.device);
  add_results(*ablate_verb, ablate);
  add_seed(*ablate_verb, ablate);
  add_overrides(*ablate_verb, ablate);
  ablate_verb->add_option("--only", ablate.only, "run only these methods, e.g. --only alone,kd")
      ->delimiter(',')
      ->allow_extra_args(false);
  ablate_verb->add_flag("--force", ablate.force, "train again what is finished already");
  verbs.emplace_back(ablate_verb, [&] { return run_ablate(ablate); });
}

void add_eval(CLI::App& app, Verbs& verbs, EvalArgs& eval) {
  auto* eval_verb = app.add_subcommand("eval", "mIoU of a trained network on a data set");
  eval_verb->add_option("model", eval.model, "run folder, step folder or .safetensors file")->required();
  add_config(*eval_verb, eval);
  add_device(*eval_verb, eval.device);
  add_results(*eval_verb, eval, "file for the scores as JSON");
  add_overrides(*eval_verb, eval);
  add_protocol(*eval_verb, eval.protocol);
  eval_verb->add_option("--split", eval.split, "part of the data set, e.g. val, test, train+val");
  eval_verb->add_option(
      "--precision", eval.precision,
      "f32, bf16, or int8 for a file of `limbeck calibrate` (default: eval.precision; int8 for one of --pack)");
  verbs.emplace_back(eval_verb, [&] { return run_eval(eval); });
}

void add_predict(CLI::App& app, Verbs& verbs, PredictArgs& predict) {
  auto* predict_verb = app.add_subcommand("predict", "segment image files");
  predict_verb->add_option("images", predict.images, "image files or folders");
  predict_verb->add_option("--stdin", predict.frames, "WxH: segment raw RGB frames of this size from standard input");
  predict_verb->add_flag("--overlay", predict.overlay, "write pictures with the mask's colours mixed in as well");
  predict_verb->add_flag("--bf16", predict.bf16, "the same as --precision bf16");
  predict_verb->add_option(
      "--precision", predict.precision,
      "f32 (default), bf16, or int8 for a file of `limbeck calibrate` (default for one of --pack)");
  add_protocol(*predict_verb, predict.protocol);
  predict_verb->add_option("-m,--model", predict.model, "run folder, step folder or .safetensors file")->required();
  add_device(*predict_verb, predict.device);
  add_results(*predict_verb, predict, "folder for the masks, or - for raw ids on standard output");
  verbs.emplace_back(predict_verb, [&] { return run_predict(predict); });
}

void add_calibrate(CLI::App& app, Verbs& verbs, CalibrateArgs& calibrate) {
  auto* calibrate_verb =
      app.add_subcommand("calibrate", "prepare a trained network for int8, and say what that costs in mIoU");
  calibrate_verb->add_option("model", calibrate.model, "run folder, step folder or .safetensors file")->required();
  add_config(*calibrate_verb, calibrate);
  add_results(*calibrate_verb, calibrate, ".safetensors file to write");
  add_overrides(*calibrate_verb, calibrate);
  calibrate_verb
      ->add_option("--images", calibrate.images,
                   "image files or folders to find ranges on (default: the training split of the configuration)")
      ->allow_extra_args(false);
  calibrate_verb->add_option("--count", calibrate.count, "pictures to find ranges on")
      ->capture_default_str()
      ->check(CLI::Range(1, 100000));
  calibrate_verb->add_flag("--pack", calibrate.pack,
                           "weights in 8 bits, too: a file of a third of the size, for inference only");
  calibrate_verb->add_option("--split", calibrate.split, "part of the data set that is scored, e.g. val, test");
  verbs.emplace_back(calibrate_verb, [&] { return run_calibrate(calibrate); });
}

void add_compare(CLI::App& app, Verbs& verbs, CompareArgs& compare) {
  auto* compare_verb =
      app.add_subcommand("compare", "two runs: configuration, results, and the first step that differs");
  compare_verb->add_option("a", compare.a, "run folder")->required();
  compare_verb->add_option("b", compare.b, "run folder")->required();
  compare_verb->add_flag("--json", compare.json, "print JSON");
  verbs.emplace_back(compare_verb, [&] { return run_compare(compare); });
}

void add_visualize(CLI::App& app, Verbs& verbs, VisualizeArgs& see) {
  auto* see_verb =
      app.add_subcommand("visualize", "affinity, saliency and class-similarity pictures of teacher and students");
  see_verb->add_option("images", see.images, "image files; none: samples of the data set");
  see_verb->add_option("--teacher", see.teacher, "run folder, step folder or .safetensors file")->required();
  add_device(*see_verb, see.device);
  see_verb->add_option("--student", see.student, "the distilled student")->required();
  see_verb->add_option("--plain", see.plain, "the same student without distillation");
  see_verb->add_option("-c,--config", see.config,
                       "configuration with the data set; default: that of the student's run");
  see_verb->add_option("-o,--out", see.out, "folder for the pictures");
  see_verb->add_option("--split", see.split, "part of the data set, e.g. val, test");
  see_verb->add_option("--count", see.count, "samples of the data set")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  see_verb->add_option("--pixel", see.pixels, "X,Y: pixel whose affinities are shown; may be repeated")
      ->allow_extra_args(false);
  see_verb->add_option("--class", see.classes, "class whose saliency is shown; may be repeated")
      ->allow_extra_args(false);
  see_verb->add_option("--teacher-tap", see.teacher_tap, "feature of the teacher for affinities");
  see_verb->add_option("--student-tap", see.student_tap, "feature of the students for affinities");
  see_verb->add_option("--tau", see.tau, "temperature of the saliency maps")->capture_default_str();
  verbs.emplace_back(see_verb, [&] { return run_visualize(see); });
}

void add_summary(CLI::App& app, Verbs& verbs, SummaryArgs& summary) {
  auto* summary_verb = app.add_subcommand("summary", "layers, shapes, parameters and MACs of a network");
  summary_verb->add_option("model", summary.model, "network name; a wrong one lists all")->required();
  summary_verb->add_option("--size", summary.size, "input size HxW")->capture_default_str();
  add_network(*summary_verb, summary);
  summary_verb->add_flag("--json", summary.json, "print JSON");
  verbs.emplace_back(summary_verb, [&] { return run_summary(summary); });
}

void add_check_data(CLI::App& app, Verbs& verbs, CommonArgs& check) {
  auto* check_verb = app.add_subcommand("check-data", "scan every image and mask; exit 3 if something is wrong");
  add_config(*check_verb, check);
  add_json(*check_verb, check);
  add_overrides(*check_verb, check);
  verbs.emplace_back(check_verb, [&] { return run_check_data(check); });
}

void add_import(CLI::App& app, Verbs& verbs, ImportArgs& import) {
  auto* import_verb = app.add_subcommand("import", "turn a weight file (.pth, .pt, .safetensors) into limbeck's own");
  import_verb->add_option("file", import.file, "weight file")->required();
  import_verb->add_option("--model", import.model, "network the weights are for; a wrong one lists all")->required();
  import_verb->add_option("-o,--out", import.out, ".safetensors file to write")->required();
  add_network(*import_verb, import);
  import_verb
      ->add_option("--bn-eps", import.bn_eps, "eps of batch norm these weights were trained with (1e-3: TensorFlow)")
      ->check(CLI::Range(1e-12, 1.0));
  import_verb
      ->add_option("--head-bn-eps", import.head_bn_eps,
                   "of the batch norms behind the backbone, if another (1e-5: TensorFlow's DeepLab)")
      ->check(CLI::Range(1e-12, 1.0));
  import_verb->add_option("--normalisation", import.normalisation, "imagenet (mean/std) or symmetric ([-1,1])");
  import_verb->add_flag("--align-corners", import.align_corners,
                        "results are enlarged with align_corners (DeepLab of TensorFlow, jf, td)");
  import_verb->add_option("--map", import.map,
                          "list of names, one pair THEIRS OURS a line, for files whose names are not known");
  import_verb->add_flag("--report", import.report, "print what happened to every tensor");
  import_verb->add_flag("--lenient", import.lenient, "accept missing and unexpected names");
  import_verb->add_flag("--new-classifier", import.new_classifier,
                        "a last layer for other classes is replaced by a fresh one");
  import_verb->add_flag("--json", import.json, "print the report as JSON");
  verbs.emplace_back(import_verb, [&] { return run_import(import); });
}

void add_export(CLI::App& app, Verbs& verbs, ExportArgs& exports) {
  auto* export_verb =
      app.add_subcommand("export", "write a trained network for other programs: ONNX, safetensors, .pth");
  export_verb->add_option("model", exports.model, "run folder, step folder or .safetensors file")->required();
  export_verb->add_option("-o,--out", exports.out, "file to write")->required();
  export_verb->add_option("--format", exports.format,
                          "onnx, safetensors or pth-compatible (default: by the name of the file)");
  export_verb->add_option("--opset", exports.opset, "ONNX operator set, 13 to 17")->capture_default_str();
  export_verb->add_flag("--keep-batch-norm", exports.keep_batch_norm, "do not fold batch norm into the convolutions");
  export_verb->add_option("--size", exports.size, "input size HxW")->capture_default_str();
  export_verb->add_option("--batch", exports.batch, "images per run")
      ->capture_default_str()
      ->check(CLI::Range(1, 100000));
  export_verb->add_flag("--dynamic-batch", exports.dynamic_batch, "any number of images");
  export_verb->add_flag("--dynamic-size", exports.dynamic_size, "any height and width");
  export_verb->add_flag("--normalise", exports.normalise, "scale the input inside: the file takes RGB values 0..255");
  export_verb
      ->add_option("--precision", exports.precision,
                   "of ONNX: f32, or int8 for a file of `limbeck calibrate` (QuantizeLinear, DequantizeLinear)")
      ->capture_default_str();
  export_verb->add_option("--output", exports.output,
                          "logits (at the network's stride), resized (to the input, default) or ids (argmax)");
  export_verb->add_option("--samples", exports.samples,
                          "pictures or folders of them for the proof (default: generated scenes)");
  export_verb
      ->add_option(
          "--runtime", exports.runtime,
          "who runs the file for the proof: auto (limbeck's kernels, and ONNX Runtime where $LIMBECK_PYTHON has it), "
          "onnxruntime (an error where it has not) or limbeck")
      ->capture_default_str();
  export_verb->add_flag("--json", exports.json, "print the proof as JSON");
  verbs.emplace_back(export_verb, [&] { return run_export(exports); });
}

void add_bench(CLI::App& app, Verbs& verbs, BenchArgs& bench) {
  auto* bench_verb = app.add_subcommand("bench", "time the distillation step, or the student's alone");
  bench_verb->add_option("what", bench.what, "step, or student: without a teacher")->capture_default_str();
  bench_verb->add_option("--dtype", bench.dtype, "f32 or bf16")->capture_default_str();
  add_device(*bench_verb, bench.device);
  bench_verb->add_option("--batch", bench.batch, "images per step")
      ->capture_default_str()
      ->check(CLI::Range(1, 100000));
  bench_verb->add_option("--size", bench.size, "input size HxW")->capture_default_str();
  bench_verb->add_option("--classes", bench.classes, "number of classes")
      ->capture_default_str()
      ->check(CLI::Range(1, 100000));
  bench_verb->add_option("--steps", bench.steps, "timed steps")->capture_default_str()->check(CLI::Range(1, 100000));
  bench_verb->add_option("--warmup", bench.warmup, "steps before the clock starts")
      ->capture_default_str()
      ->check(CLI::Range(0, 100000));
  bench_verb->add_flag("--cuda-graph", bench.cuda_graph, "on a GPU: record the step and time its replays");
  bench_verb->add_flag("--json", bench.json, "print JSON");
  bench_verb->add_flag(
      "--serve", bench.serve,
      "after the warm-up: for each line with a number on standard input, time so many steps and print JSON");
  verbs.emplace_back(bench_verb, [&] { return run_bench(bench); });
}

void add_init_config(CLI::App& app, Verbs& verbs, InitConfigArgs& init) {
  auto* init_verb = app.add_subcommand("init-config", "print a ready configuration, or list them");
  init_verb->add_option("preset", init.preset, "name of the preset; none lists all");
  init_verb->add_option("-o,--out", init.out, "file to write");
  verbs.emplace_back(init_verb, [&] { return run_init_config(init); });
}

void add_report(CLI::App& app, Verbs& verbs, std::string& report_run) {
  auto* report_verb = app.add_subcommand("report", "write report.html of a run again");
  report_verb->add_option("run", report_run, "run folder")->required();
  verbs.emplace_back(report_verb, [&] { return run_report(report_run); });
}

/// Of all verbs; the parser fills those of the one that was given.
struct Arguments {
  TrainArgs train;
  AblateArgs ablate;
  EvalArgs eval;
  PredictArgs predict;
  CalibrateArgs calibrate;
  CompareArgs compare;
  VisualizeArgs see;
  SummaryArgs summary;
  CommonArgs check;
  ImportArgs import;
  ExportArgs exports;
  BenchArgs bench;
  InitConfigArgs init;
  std::string report_run;
};

int run(int argc, char** argv) {
  CLI::App app{"limbeck distils big segmentation networks into small ones"};
  app.require_subcommand(1);
  app.failure_message(usage_message);
  int threads = 0;
  app.add_option("-j,--threads", threads, "threads of the compute kernels (default: OMP_NUM_THREADS or all cores)")
      ->check(CLI::Range(1, 4096));
  app.fallthrough();
  Arguments args;
  Verbs verbs;
  add_training(app, verbs, args.train);
  add_ablate(app, verbs, args.ablate);
  add_eval(app, verbs, args.eval);
  add_predict(app, verbs, args.predict);
  add_calibrate(app, verbs, args.calibrate);
  add_compare(app, verbs, args.compare);
  add_visualize(app, verbs, args.see);
  add_summary(app, verbs, args.summary);
  add_check_data(app, verbs, args.check);
  add_import(app, verbs, args.import);
  add_export(app, verbs, args.exports);
  add_bench(app, verbs, args.bench);
  add_init_config(app, verbs, args.init);
  add_report(app, verbs, args.report_run);

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    // The library has codes of its own; ours are 0 for --help and 2 for every mistake.
    return app.exit(e) == 0 ? static_cast<int>(ExitCode::kOk) : static_cast<int>(ExitCode::kUsage);
  }
  if (threads > 0) set_threads(threads);
  for (const auto& [verb, action] : verbs) {
    if (verb->parsed()) return action();
  }
  return static_cast<int>(ExitCode::kUsage);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const int status = run(argc, argv);
    if (std::fflush(stdout) != 0) limbeck::fail("limbeck", "cannot write to standard output: {}", std::strerror(errno));
    return status;
  } catch (const limbeck::Error& e) {
    limbeck::log_error("{}", e.what());
    return static_cast<int>(e.exit_code());
  } catch (const std::filesystem::filesystem_error& e) {
    limbeck::log_error("[file] {}: {}", e.path1().string(), e.code().message());
  } catch (const std::bad_alloc&) {
    limbeck::log_error("[limbeck] out of memory; use a smaller batch or crop, or --tile for a large picture");
  } catch (const std::exception& e) {
    limbeck::log_error("[limbeck] {}", e.what());
  }
  return static_cast<int>(limbeck::ExitCode::kRuntime);
}
