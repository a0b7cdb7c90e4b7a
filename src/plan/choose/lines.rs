//! The lines of a planned recipe, each with its reason, and their text.

use std::fmt::Write;

use crate::plan::choose::PlanDraft;
use crate::plan::facts::{Facts, Machine};
use crate::plan::{Estimate, PlanOptions};
use crate::text;

/// A line of the recipe and why it is so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The table it stands in, for instance `train.optimizer`.
    pub table: String,
    /// Its key.
    pub key: String,
    /// Its value, as TOML.
    pub value: String,
    /// Why.
    pub reason: String,
}

impl PlanDraft {
    /// The recipe with its reasons, what it was chosen by and what it will take.
    pub(in crate::plan) fn render(
        &self,
        facts: &Facts,
        machine: &Machine,
        options: &PlanOptions,
        estimated: &Estimate,
    ) -> String {
        let minutes = |seconds: f64| text::minutes(seconds.round() as u64);
        let memory =
            estimated.peak_mb.map_or("an unknown amount of memory".to_owned(), |mb| format!("{mb} MB at most"));
        let free = machine.free_mb.map_or(String::new(), |mb| format!(", {mb} MB free"));
        let head = [
            format!(
                "A plan for `{}`, made for {} and {} threads{free}.",
                facts.dataset,
                minutes(options.budget.as_secs_f64()),
                machine.threads
            ),
            format!(
                "Estimated: {:.0} ms per step, {} in all, {memory}.",
                1e3 * estimated.step_s,
                minutes(estimated.total_s)
            ),
        ];
        let head: String = head.iter().map(|line| format!("# {line}\n")).collect();
        head + &toml_of(&self.decided(options))
    }

    /// The lines with what the user decided in their place.
    pub(super) fn decided(&self, options: &PlanOptions) -> Vec<Line> {
        let mut lines = self.lines.clone();
        for (at, (path, value)) in options.set().enumerate() {
            let whose = if at < options.given.len() { "as the model has it" } else { "set by you" };
            let Some((table, key)) = path.rsplit_once('.') else { continue };
            // A whole table takes the place of its lines.
            lines.retain(|line| line.table != path);
            let is_toml = toml::from_str::<toml::Table>(&format!("v = {value}")).is_ok();
            let value = if is_toml { value.to_owned() } else { format!("{value:?}") };
            match lines.iter_mut().find(|line| line.table == table && line.key == key) {
                Some(line) => {
                    line.reason = format!("{whose}; planned: {}", line.value);
                    line.value = value;
                }
                None => lines.push(Line { table: table.into(), key: key.into(), value, reason: whose.into() }),
            }
        }
        lines
    }
}

/// The lines, by table.
pub(super) fn toml_of(lines: &[Line]) -> String {
    let mut tables: Vec<&str> = lines.iter().map(|line| &*line.table).collect();
    tables.sort_unstable();
    tables.dedup();
    let mut text = String::new();
    for table in tables {
        let _ = write!(text, "\n[{table}]\n");
        for Line { key, value, reason, .. } in lines.iter().filter(|line| line.table == table) {
            let assigned = format!("{key} = {value}");
            let _ = match reason.is_empty() {
                true => writeln!(text, "{assigned}"),
                false => writeln!(text, "{assigned:<34} # {reason}"),
            };
        }
    }
    text
}
