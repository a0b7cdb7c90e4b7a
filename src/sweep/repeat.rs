//! One recipe trained several times, with several seeds or on all folds of its training images but one, and how far
//! apart the runs end.

use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::dataset::{Fold, Split};
use crate::error::{Error, Result};
use crate::files;
use crate::metrics::{Confusion, Scores};
use crate::stats::{deviation, mean, t_interval};
use crate::text::percent_or;

/// What differs from run to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Repeat {
    /// The seed: this many, from the recipe's on.
    Seeds(u64),
    /// The part of the training images that is not learned but evaluated on: one of this number of parts, each once
    /// (cross-validation).
    Folds(usize),
}

impl Repeat {
    /// What each run is called, and its recipe.
    ///
    /// # Errors
    /// Fewer than two or more than 100 runs, or a dataset that cannot be cut into this many parts.
    pub fn runs(self, recipe: &Config) -> Result<Vec<(String, Config)>> {
        let count = self.count()?;
        let run = |number: u64| {
            let mut config = recipe.clone();
            let name = match self {
                Self::Seeds(_) => {
                    config.train.seed = recipe.train.seed.wrapping_add(number);
                    format!("seed-{}", config.train.seed)
                }
                Self::Folds(of) => {
                    config.data.fold = Some(Fold { index: number as usize, of });
                    format!("fold-{number}")
                }
            };
            config.data.check()?;
            // What cannot be opened is reported before the first run, not after hours.
            config.data.open(Split::Train)?;
            Ok((name, config))
        };
        (0..count).map(run).collect()
    }

    /// Keeps in the folder of the runs what they are.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(self, dir: &Path) -> Result<()> {
        write_json(&dir.join(FILE), &self)
    }

    /// What the runs of a folder are; none if it is not a folder of several runs.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(FILE);
        if !path.exists() {
            return Ok(None);
        }
        let text = files::read_text(&path, files::TEXT).map_err(|error| Error::file("read", &path, error))?;
        let found: Self =
            files::parse_json(text.as_bytes()).map_err(|error| Error::file("read", &path, error).with_hint(RESTORE))?;
        found.count().map_err(|error| Error::file("use", &path, error).with_hint(RESTORE))?;
        Ok(Some(found))
    }

    /// How many runs.
    fn count(self) -> Result<u64> {
        let count = match self {
            Self::Seeds(count) => count,
            Self::Folds(count) => count as u64,
        };
        match (2..=100).contains(&count) {
            true => Ok(count),
            false => Err(Error::new(format!("{count} runs are not between 2 and 100"))
                .with_hint("one run is what `structtoken train` does without --seeds and --folds")),
        }
    }
}

/// What to do about a damaged `repeat.json`.
const RESTORE: &str = "write the number of seeds or folds into it, for instance {\"seeds\": 3} or {\"folds\": 5}, and continue with --resume";

const FILE: &str = "repeat.json";

/// How far apart the values of several runs lie. Values that a run does not have take no part.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Their mean.
    pub mean: Option<f64>,
    /// Their standard deviation (n - 1); of two and more.
    pub sd: Option<f64>,
    /// Student's 95 % interval of the mean, which takes runs for independent; folds share most of their training
    /// images, so theirs is somewhat too narrow.
    pub interval: Option<[f64; 2]>,
}

impl Spread {
    fn of(values: impl Iterator<Item = Option<f64>>) -> Self {
        let values: Vec<f64> = values.flatten().collect();
        // All of them are shares, and nothing lies beyond 0 and 1.
        let interval = t_interval(&values).map(|interval| interval.map(|end| end.clamp(0.0, 1.0)));
        Self { mean: mean(&values), sd: deviation(&values), interval }
    }
}

/// What several runs of one recipe reached.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The runs' names, mIoU, mAcc and aAcc.
    pub runs: Vec<RepeatRun>,
    /// Why scores of a run say nothing, or little.
    pub warnings: Vec<String>,
    /// Of the runs' mIoU.
    pub miou: Spread,
    /// Of their mean accuracy.
    pub macc: Spread,
    /// Of their accuracy over pixels.
    pub aacc: Spread,
    /// Of every class's IoU.
    pub classes: Vec<Class>,
    /// With folds, the scores over all of their images at once: each training image is judged once, by the run that has
    /// not learned it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pooled: Option<Scores>,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RepeatRun {
    /// Its folder.
    pub run: String,
    /// Mean IoU.
    pub miou: Option<f64>,
    /// Mean accuracy.
    pub macc: Option<f64>,
    /// Accuracy over pixels.
    pub aacc: Option<f64>,
}

/// One class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Class {
    /// Its name.
    pub name: String,
    /// IoU over the runs.
    pub iou: Spread,
}

impl Summary {
    /// Of the scores of each run, which are of the same classes.
    ///
    /// # Errors
    /// Scores whose matrices are of different classes.
    pub fn new(repeat: Repeat, found: &[(String, Scores)]) -> Result<Self> {
        let spread = |value: fn(&Scores) -> Option<f64>| Spread::of(found.iter().map(|(_, scores)| value(scores)));
        let runs = found.iter().map(|(run, scores)| RepeatRun {
            run: run.clone(),
            miou: scores.miou,
            macc: scores.macc,
            aacc: scores.aacc,
        });
        let names: Vec<String> = found[0].1.classes.iter().map(|class| class.name.clone()).collect();
        if let Some((run, _)) = found.iter().find(|(_, scores)| scores.classes.len() != names.len()) {
            return Err(Error::new(format!("{run} was trained on other classes than {}", found[0].0)));
        }
        let iou = |at: usize| Spread::of(found.iter().map(move |(_, scores)| scores.classes[at].iou));
        let pooled = match repeat {
            Repeat::Seeds(_) => None,
            Repeat::Folds(_) => {
                let mut sum = Confusion::new(names.len());
                for (_, scores) in found {
                    sum.merge(&Confusion::of(scores)?);
                }
                Some(sum.scores(&names))
            }
        };
        Ok(Self {
            runs: runs.collect(),
            warnings: found
                .iter()
                .flat_map(|(run, scores)| scores.warnings.iter().map(move |warning| format!("{run}: {warning}")))
                .collect(),
            miou: spread(|scores| scores.miou),
            macc: spread(|scores| scores.macc),
            aacc: spread(|scores| scores.aacc),
            classes: names.iter().enumerate().map(|(at, name)| Class { name: name.clone(), iou: iou(at) }).collect(),
            pooled,
        })
    }

    /// As tables in Markdown, in percent.
    pub fn table(&self) -> String {
        let percent = |value| percent_or(value, 1, "-");
        let range = |interval: Option<[f64; 2]>| {
            interval.map_or("-".to_owned(), |[low, high]| match (low <= 0.0, high >= 1.0) {
                (true, true) => "too few runs to tell".to_owned(),
                _ => format!("{:.1} to {:.1}", 100.0 * low, 100.0 * high),
            })
        };
        let mut text = "| run | mIoU | mAcc | aAcc |\n|:---|---:|---:|---:|\n".to_owned();
        let mut row = |name: &str, cells: [String; 3]| {
            let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
        };
        for run in &self.runs {
            row(&run.run, [run.miou, run.macc, run.aacc].map(percent));
        }
        let spreads = [self.miou, self.macc, self.aacc];
        row("mean", spreads.map(|spread| percent(spread.mean)));
        row("standard deviation", spreads.map(|spread| percent(spread.sd)));
        row("95 % of the mean", spreads.map(|spread| range(spread.interval)));
        if let Some(pooled) = &self.pooled {
            row("all images at once", [pooled.miou, pooled.macc, pooled.aacc].map(percent));
        }
        for warning in &self.warnings {
            let _ = writeln!(text, "\n**Warning: {warning}**");
        }
        text.push_str("\n| class | IoU | standard deviation |\n|:---|---:|---:|\n");
        for Class { name, iou } in &self.classes {
            let _ = writeln!(text, "| {name} | {} | {} |", percent(iou.mean), percent(iou.sd));
        }
        text
    }

    /// Writes `summary.json` and `summary.md` beside the runs.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, dir: &Path) -> Result<()> {
        write_json(&dir.join("summary.json"), self)?;
        files::write(&dir.join("summary.md"), self.table().as_bytes())
    }
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Error::file("write", path, error))?;
    files::write(path, format!("{text}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(matrix: [[u64; 2]; 2]) -> Scores {
        let text = format!(r#"{{"matrix": {matrix:?}, "ignored": 3}}"#);
        let confusion: Confusion = serde_json::from_str(&text).unwrap();
        confusion.scores(&["a".to_owned(), "b".to_owned()])
    }

    #[test]
    fn the_spread_is_students_and_folds_are_pooled() {
        let found = [[[8, 2], [0, 0]], [[6, 4], [1, 9]], [[10, 0], [5, 5]]].map(scores);
        let found: Vec<_> = found.into_iter().enumerate().map(|(at, scores)| (format!("fold-{at}"), scores)).collect();
        let summary = Summary::new(Repeat::Folds(3), &found).unwrap();
        let aacc = [0.8, 0.75, 0.75];
        let mean = aacc.iter().sum::<f64>() / 3.0;
        let sd = (aacc.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 2.0).sqrt();
        assert!((summary.aacc.mean.unwrap() - mean).abs() < 1e-12 && (summary.aacc.sd.unwrap() - sd).abs() < 1e-12);
        let half = 4.3027 * sd / 3f64.sqrt();
        assert!((summary.aacc.interval.unwrap()[1] - mean - half).abs() < 1e-6);
        let pooled = summary.pooled.as_ref().unwrap();
        assert_eq!(pooled.matrix, [[24, 6], [6, 14]]);
        assert_eq!((pooled.ignored_pixels, pooled.aacc), (9, Some(38.0 / 50.0)));
        // 0 of 2 in the first fold: predicted where it is not.
        assert_eq!(summary.classes[1].iou.mean, Some((0.0 + 9.0 / 14.0 + 5.0 / 10.0) / 3.0));
        assert!(summary.table().contains("| all images at once | 60.3 |"), "{}", summary.table());
        assert!(Summary::new(Repeat::Seeds(3), &found).unwrap().pooled.is_none());
    }

    #[test]
    fn intervals_of_shares_stay_between_none_and_all() {
        let of = |found: &[[[u64; 2]; 2]]| {
            let named = found.iter().enumerate().map(|(at, matrix)| (format!("seed-{at}"), scores(*matrix)));
            Summary::new(Repeat::Seeds(found.len() as u64), &named.collect::<Vec<_>>()).unwrap()
        };
        let apart = of(&[[[9, 1], [0, 10]], [[5, 5], [5, 5]]]);
        assert_eq!(apart.aacc.interval, Some([0.0, 1.0]));
        assert!(apart.table().contains("| 95 % of the mean | too few runs to tell |"), "{}", apart.table());
        let high = of(&[[[10, 0], [0, 10]], [[10, 0], [1, 9]], [[10, 0], [0, 10]]]);
        let [low, most] = high.aacc.interval.unwrap();
        assert!(low > 0.9 && low < 0.95 && most >= 1.0, "{low} {most}");
        assert!(high.table().contains(" to 100.0 |"), "{}", high.table());
    }
}
