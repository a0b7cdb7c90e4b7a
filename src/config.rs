//! A recipe: the whole of a run as one TOML file that states only what differs from the defaults.
//!
//! The defaults are the paper's (ADE20K, ViT-S, PWE). Unknown keys are errors that point at their line. After the file
//! come the changes of the command line, `--set train.iterations=1000`.

mod built_in;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files;
use crate::infer::InferConfig;
use crate::kernels::Precision;
use crate::loader::DataConfig;
use crate::model::ModelConfig;
use crate::text::{distance, shell_word, utf8};
use crate::train::TrainConfig;

/// All settings of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Config {
    /// The network.
    pub model: ModelConfig,
    /// The dataset, and what is done to its images.
    pub data: DataConfig,
    /// How weights are learned.
    pub train: TrainConfig,
    /// How images are evaluated and predicted.
    pub eval: InferConfig,
}

impl Default for Config {
    fn default() -> Self {
        let (model, data, train) = Default::default();
        Self { model, eval: InferConfig { resize: training_scale(&data), ..InferConfig::default() }, data, train }
    }
}

/// The scale about which training resizes images.
fn training_scale(data: &DataConfig) -> Option<[usize; 2]> {
    data.augment.resize.as_ref().filter(|range| range.keep_ratio).and_then(|range| range.scale)
}

impl Config {
    /// Reads the recipe at `path` and applies `changes`, each `a.b=c`. Where no file is there,
    /// `configs/shapes/demo.toml` and the other recipes of the project's `configs/` are the program's own. A dataset's
    /// TOML is looked for beside the recipe, then in the working directory.
    pub fn read(path: &Path, changes: &[String]) -> Result<Self> {
        let text = files::read_text(path, files::RECIPE);
        let text = text.or_else(|error| match built_in::find(path) {
            Some(text) if error.kind() == std::io::ErrorKind::NotFound => Ok(text.to_owned()),
            _ => Err(error),
        });
        let text = text.map_err(|error| {
            let hint = match path.is_dir() {
                true => format!(
                    "this is a folder, which has no recipe yet: `structtoken train {} --plan > recipe.toml` writes one for the \
                     images in it",
                    shell_word(path)
                ),
                false => "name a recipe, a TOML file or one of the program's own such as configs/shapes/demo.toml, or a folder of images and masks that is there: \
                          `structtoken train DIR` plans a recipe for it"
                    .to_owned(),
            };
            Error::file("read the recipe", path, error).with_hint(hint)
        })?;
        let mut config = Self::parse(&text, &path.display().to_string(), changes)?;
        let beside = path.with_file_name(&config.data.dataset);
        if config.data.dataset.ends_with(".toml") && beside.is_file() {
            config.data.dataset = utf8(&beside)?.to_owned();
        }
        Ok(config)
    }

    /// The recipe in `text`, called `name` in errors, with `changes` applied.
    pub fn parse(text: &str, name: &str, changes: &[String]) -> Result<Self> {
        let bad = |error: toml::de::Error| {
            let shown = if error.span().is_none() { format!("{error}") } else { located(text, &error) };
            let is_dataset = toml::from_str(text).is_ok_and(|table: toml::Table| table.contains_key("classes"));
            Error::new(format!("recipe `{name}` is not valid:\n{shown}")).with_hint(match is_dataset {
                true => "this is a dataset TOML: name it in a recipe, as data.dataset".to_owned(),
                false => hint(error.message()),
            })
        };
        let mut config: Self = toml::from_str(text).map_err(bad)?;
        let mut table: toml::Table = toml::from_str(text).map_err(bad)?;
        rename_old(&mut table);
        if !changes.is_empty() {
            for change in changes {
                set(&mut table, change)?;
            }
            config = table.clone().try_into().map_err(|error: toml::de::Error| {
                Error::new(format!("after --set {}: {}", changes.join(" --set "), error.message()))
                    .with_hint(hint(error.message()))
            })?;
        }
        if table.get("eval").is_none_or(|eval| eval.get("resize").is_none()) {
            config.eval.resize = training_scale(&config.data);
        }
        config.check().map_err(|error| match error.hint() {
            Some(_) => error,
            None => error.with_hint(EVERY_KEY),
        })?;
        Ok(config)
    }

    /// Refuses values that cannot work, naming the key.
    pub fn check(&self) -> Result<()> {
        self.model.check()?;
        self.data.check()?;
        self.train.check()?;
        self.eval.check()
    }

    /// Fails where the recipe `named` so cannot be trained by, although a model may have its settings.
    ///
    /// # Errors
    /// Evaluation in eight bits, whose cost is not known before there are weights.
    pub fn ensure_trainable(&self, named: &Path) -> Result<()> {
        if self.eval.precision == Precision::Int8 {
            return Err(Error::new(format!(
                "`{}`: eval.precision = \"int8\" is for models whose cost in eight bits is known",
                named.display()
            ))
            .with_hint("leave it out, and quantize the model when it is trained: structtoken quantize"));
        }
        Ok(())
    }

    /// The keys in which another recipe differs, each as `a.b: old -> new`.
    pub fn differences(&self, other: &Self) -> Result<Vec<String>> {
        differences(self, other)
    }

    /// The whole truth as TOML: every key with its value.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|error| Error::new("cannot write the recipe as TOML").with_source(error))
    }
}

/// The keys in which two things that are written as TOML differ, each as `a.b: old -> new`.
pub(crate) fn differences<T: Serialize>(ours: &T, theirs: &T) -> Result<Vec<String>> {
    let leaves = |settings: &T| -> Result<BTreeMap<String, String>> {
        let table = toml::Value::try_from(settings)
            .map_err(|error| Error::new("cannot write the settings as TOML").with_source(error))?;
        let mut found = BTreeMap::new();
        flatten("", &table, &mut found);
        Ok(found)
    };
    let (ours, theirs) = (leaves(ours)?, leaves(theirs)?);
    let shown = |value: Option<&String>| value.cloned().unwrap_or_else(|| "none".to_owned());
    let keys: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let changed = keys.into_iter().filter(|key| ours.get(*key) != theirs.get(*key));
    Ok(changed.map(|key| format!("{key}: {} -> {}", shown(ours.get(key)), shown(theirs.get(key)))).collect())
}

const EVERY_KEY: &str = "`structtoken inspect configs/shapes/demo.toml` prints all keys with their values; a key that \
                         is left out has its default";

/// What may help with a message of the parser: for an unknown name the nearest of those it expected.
fn hint(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = message.starts_with("unknown ").then(|| quoted.next()).flatten();
    let nearest = unknown.and_then(|name| quoted.map(|known| (distance(name, known), known)).min());
    match (unknown, nearest) {
        (Some(name), Some((edits, known))) if edits <= 1 + name.len() / 3 => format!("did you mean `{known}`?"),
        _ if message.contains("missing field `type`") => {
            "this table needs a `type`, for instance `vit` for a backbone or `structtoken` for a decoder".to_owned()
        }
        _ => EVERY_KEY.to_owned(),
    }
}

/// Every value of a table by its dotted key.
fn flatten(key: &str, value: &toml::Value, found: &mut BTreeMap<String, String>) {
    match value {
        toml::Value::Table(table) => {
            for (name, value) in table {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                flatten(&key, value, found);
            }
        }
        value => _ = found.insert(key.to_owned(), value.to_string()),
    }
}

/// Puts `a.b=c` into the table; `c` is a TOML value, or else a string.
pub(crate) fn set(table: &mut toml::Table, change: &str) -> Result<()> {
    let malformed = || {
        Error::usage(format!("--set `{change}` is not of the form key=value"))
            .with_hint("for instance `--set train.iterations=1000` or `--set model.decoder.block=cse`")
    };
    let (key, value) = change.split_once('=').ok_or_else(malformed)?;
    let keys: Vec<&str> = current(key.trim()).split('.').collect();
    if keys.iter().any(|key| key.is_empty()) || keys.len() > DEEPEST {
        return Err(malformed());
    }
    let value = value.trim();
    let parsed = toml::from_str::<toml::Table>(&format!("value = {value}")).ok().and_then(|mut t| t.remove("value"));
    let parsed = parsed.unwrap_or_else(|| toml::Value::String(value.to_owned()));
    let (Some((last, path)), mut table) = (keys.split_last(), table) else { return Err(malformed()) };
    for key in path {
        let entry = table.entry((*key).to_owned()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        let toml::Value::Table(inner) = entry else {
            return Err(malformed().with_source(Error::new(format!("`{key}` is a value, not a table"))));
        };
        table = inner;
    }
    table.insert((*last).to_owned(), parsed);
    Ok(())
}

/// Keys of earlier versions, and what they are called now.
const RENAMED: [(&str, &str); 1] = [("train.schedule.bends", "train.schedule.reschedules")];

/// The name that a key has now.
pub(crate) fn current(key: &str) -> &str {
    RENAMED.iter().find(|(old, _)| *old == key).map_or(key, |(_, new)| new)
}

/// No key of a recipe has more parts.
const DEEPEST: usize = 8;

/// The error with its line and key. Inside of a table that is chosen by `type` the parser knows only the table, so the
/// culprit is looked up: the key without which the error is gone.
fn located(text: &str, error: &toml::de::Error) -> String {
    let Some(path) = culprit(text, error) else { return error.to_string() };
    let key = path.rsplit('.').next().unwrap_or(&path);
    let from = error.span().map_or(0, |span| span.start);
    let mut offset = 0;
    for (number, line) in text.lines().enumerate() {
        offset += line.len() + 1;
        // In an inline table the key is not the first word of its line.
        let at = line.split('#').next().and_then(|line| line.find(key)).filter(|_| offset > from);
        if let Some(at) = at {
            let mark = format!("{}{}", " ".repeat(line[..at].chars().count()), "^".repeat(key.len()));
            return format!("line {}: `{path}`: {}\n  |\n  | {line}\n  | {mark}", number + 1, error.message());
        }
    }
    format!("`{path}`: {}", error.message())
}

/// The most keys of a recipe, with room.
const MOST_KEYS: usize = 1000;

/// The key of the value that an error is about.
fn culprit(text: &str, error: &toml::de::Error) -> Option<String> {
    let table: toml::Table = toml::from_str(text).ok()?;
    let mut keys = BTreeMap::new();
    flatten("", &toml::Value::Table(table.clone()), &mut keys);
    // Each of them is tried, which takes as long as reading all: no recipe has this many.
    if keys.len() > MOST_KEYS {
        return None;
    }
    // Without its `type` a table has another error.
    keys.into_keys().filter(|key| !key.ends_with(".type")).find(|key| {
        let mut rest = table.clone();
        remove(&mut rest, key);
        match rest.try_into::<Config>() {
            Ok(_) => true,
            Err(other) => other.message() != error.message(),
        }
    })
}

/// Gives keys of earlier versions their present names.
fn rename_old(table: &mut toml::Table) {
    for (old, new) in RENAMED {
        if let (Some(value), Some((path, last))) = (remove(table, old), new.rsplit_once('.')) {
            let inner = path.split('.').try_fold(&mut *table, |table, key| table.get_mut(key)?.as_table_mut());
            inner.map(|inner| inner.insert(last.to_owned(), value));
        }
    }
}

/// Takes `a.b` out of the table.
fn remove(table: &mut toml::Table, key: &str) -> Option<toml::Value> {
    match key.split_once('.') {
        None => table.remove(key),
        Some((first, rest)) => remove(table.get_mut(first)?.as_table_mut()?, rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str, changes: &[&str]) -> String {
        let changes: Vec<String> = changes.iter().map(|change| (*change).to_owned()).collect();
        Config::parse(text, "r.toml", &changes).unwrap_err().to_string()
    }

    #[test]
    fn keys_of_earlier_versions_are_read() {
        let new = "[train]\niterations = 100\n[train.schedule]\nreschedules = [[10, 80]]";
        let old = new.replace("reschedules", "bends");
        let expected = Config::parse(new, "r.toml", &[]).unwrap();
        assert_eq!(Config::parse(&old, "r.toml", &[]).unwrap(), expected);
        let longer = Config::parse(&new.replace("80", "90"), "r.toml", &[]).unwrap();
        for (text, change) in [(new, "bends"), (&*old, "reschedules"), (&*old, "bends"), (new, "reschedules")] {
            let change = format!("train.schedule.{change}=[[10, 90]]");
            assert_eq!(Config::parse(text, "r.toml", &[change]).unwrap(), longer);
        }
        assert!(refused(&format!("{new}\nbends = []"), &[]).contains("duplicate"));
    }

    #[test]
    fn an_empty_recipe_is_the_paper() {
        let config = Config::parse("", "r.toml", &[]).unwrap();
        assert_eq!(config, Config::default());
        assert_eq!(config.train.iterations, 160_000);
    }

    #[test]
    fn the_resolved_recipe_reads_back() {
        let text = "[model.backbone]\ntype = \"vit\"\nsize = \"tiny\"\n[train]\niterations = 7";
        let config =
            Config::parse(text, "r.toml", &["model.decoder.type=structtoken".into(), "model.decoder.block=cse".into()])
                .unwrap();
        let again = Config::parse(&config.to_toml().unwrap(), "again.toml", &[]).unwrap();
        assert_eq!(config, again);
    }

    #[test]
    fn a_typo_is_shown_at_its_line() {
        let error = refused("[train]\niterations = 5\nbatchsize = 2\n", &[]);
        assert!(error.contains("batchsize") && error.contains('3') && error.contains("batch_size"), "{error}");
        let error = refused("[model.decoder]\ntype = \"structtoken\"\nblok = \"cse\"\n", &[]);
        assert!(error.contains("blok") && error.contains("line 3") && error.contains("num_blocks"), "{error}");
        let error = refused("[model.decoder]\ntype = \"structtoken\"\nblock = \"csee\"\n", &[]);
        assert!(error.contains("csee") && error.contains("line 3: `model.decoder.block`"), "{error}");
        let error = refused("[model]\nbackbone = { type = \"vit\", depth = \"3\" }\n", &[]);
        assert!(error.contains("line 2: `model.backbone.depth`: invalid type"), "{error}");
        let error = refused("[model.backbone]\ntype = \"vti\"\n", &[]);
        assert!(error.contains("vti"), "{error}");
    }

    #[test]
    fn hints_fit_the_fault() {
        let hint = |text: &str| Config::parse(text, "r.toml", &[]).unwrap_err().hint().unwrap().to_owned();
        assert_eq!(hint("[train]\nbatchsize = 2"), "did you mean `batch_size`?");
        assert_eq!(hint("[model.decoder]\ntype = \"structtoken\"\nblock = \"csee\""), "did you mean `cse`?");
        assert!(hint("[model.decoder]\nnum_blocks = 2").contains("`structtoken` for a decoder"));
        assert!(hint("name = \"s\"\nclasses = [\"a\"]").contains("data.dataset"));
        assert!(hint("[train]\nxyzzy = 2").contains("prints all keys"));
    }

    #[test]
    fn images_are_evaluated_at_the_scale_of_training() {
        let resize = |text: &str| Config::parse(text, "r.toml", &[]).unwrap().eval.resize;
        assert_eq!(resize(""), Some([2048, 512]));
        assert_eq!(resize("[data.augment.resize]\nscale = [640, 320]\n[eval]\nflip = true"), Some([640, 320]));
        assert_eq!(resize("[data.augment]\nresize = \"none\""), None);
        assert_eq!(resize("[data.augment.resize]\nscale = \"image\""), None);
        assert_eq!(resize("[eval]\nresize = \"none\""), None);
        assert_eq!(resize("[eval]\nresize = [9, 8]"), Some([9, 8]));
        let config = Config::parse("[eval]\nresize = \"none\"", "r.toml", &[]).unwrap();
        assert_eq!(Config::parse(&config.to_toml().unwrap(), "again.toml", &[]).unwrap(), config);
    }

    #[test]
    fn a_dataset_is_found_beside_its_recipe() {
        let folder = tempfile::tempdir().unwrap();
        let (recipe, set) = (folder.path().join("r.toml"), folder.path().join("set.toml"));
        std::fs::write(&recipe, "[data]\ndataset = \"set.toml\"").unwrap();
        assert_eq!(Config::read(&recipe, &[]).unwrap().data.dataset, "set.toml");
        std::fs::write(&set, "").unwrap();
        assert_eq!(Config::read(&recipe, &[]).unwrap().data.dataset, set.display().to_string());
    }

    #[test]
    fn differences_are_named_by_key() {
        let before = Config::parse("[train.optimizer]\nclip_norm = 1.0", "r.toml", &[]).unwrap();
        let after = Config::parse("[train]\nseed = 3", "r.toml", &[]).unwrap();
        let found = before.differences(&after).unwrap();
        assert_eq!(found, ["train.optimizer.clip_norm: 1.0 -> none", "train.seed: 0 -> 3"]);
    }

    #[test]
    fn changes_are_checked_like_the_file() {
        assert!(refused("", &["train.iteration=5"]).contains("iteration"));
        assert!(refused("", &["train"]).contains("key=value"));
        assert!(refused("", &["train.batch_size=0"]).contains("batch_size"));
        for change in [
            "train.batch_size=1000000000",
            "train.iterations=9000000000000000000",
            "data.cache_mb=100000000000",
            "eval.windows_per_batch=1000000000000",
            "model.backbone.embed_dim=4611686018427387904",
        ] {
            let changes = ["model.backbone.type=vit", change];
            let key = change.split('=').next().unwrap().rsplit('.').next().unwrap();
            assert!(refused("", &changes).contains(key), "{change}");
        }
    }
}
