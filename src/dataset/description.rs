//! The TOML of a dataset, found by its name, read and checked.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::dataset::label_map::LabelMap;
use crate::dataset::spec::{ClassSpec, DatasetSpec, MAX_CLASSES, check_range};
use crate::error::{Error, Result};
use crate::files;
use crate::text::shell_word;

/// The descriptions that the program carries, by name.
pub const BUILT_IN: [(&str, &str); 7] = [
    ("ade20k", include_str!("../../configs/datasets/ade20k.toml")),
    ("camvid", include_str!("../../configs/datasets/camvid.toml")),
    ("ccp14", include_str!("../../configs/datasets/ccp14.toml")),
    ("cityscapes", include_str!("../../configs/datasets/cityscapes.toml")),
    ("coco-stuff10k", include_str!("../../configs/datasets/coco-stuff10k.toml")),
    ("dsb2018", include_str!("../../configs/datasets/dsb2018.toml")),
    ("voc", include_str!("../../configs/datasets/voc.toml")),
];

impl DatasetSpec {
    /// The description called `name`: a built-in one, or the TOML at that path.
    ///
    /// # Errors
    /// As [`read`](Self::read); and a name that is neither.
    pub fn find(name: &str) -> Result<Self> {
        if let Some((name, text)) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
            return Self::parse(text, &PathBuf::from(format!("{name}.toml")));
        }
        let path = Path::new(name);
        if !path.exists() && path.extension().is_none() {
            let known: Vec<_> = BUILT_IN.iter().map(|(name, _)| *name).collect();
            return Err(Error::new(format!("there is no dataset `{name}`"))
                .with_missing(path)
                .with_hint(format!("pass the path of a dataset TOML, or one of shapes, {}", known.join(", "))));
        }
        if !path.exists() {
            return Err(Error::new(format!("the dataset `{name}` does not exist")).with_missing(path).with_hint(
                "a relative path is relative to the recipe or, if nothing is there, to the working directory; for a model file \
                 that has moved, pass where the dataset is now: --set data.dataset=PATH",
            ));
        }
        Self::read(path)
    }

    /// Reads and checks the TOML at `path`.
    ///
    /// # Errors
    /// A file that is missing or not UTF-8; unknown keys and wrong types with line and column; classes without end,
    /// twice the same, or two that claim one value.
    pub fn read(path: &Path) -> Result<Self> {
        // Annotations are not a description, however long they are.
        if path.extension().is_some_and(|ending| {
            ["json", "csv", "xml", "yaml", "yml"].iter().any(|one| ending.eq_ignore_ascii_case(one))
        }) && path.is_file()
        {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            return Err(Error::new(format!("`{}` is not the TOML of a dataset", path.display())).with_hint(format!(
                "describe its folder, and use the TOML: structtoken data init {}",
                shell_word(folder)
            )));
        }
        let text = files::read_text(path, files::RECIPE).map_err(|e| Error::file("read", path, e))?;
        Self::parse(&text, path)
    }

    /// Reads and checks the text of a TOML that lies, or could lie, at `file`.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(text: &str, file: &Path) -> Result<Self> {
        let mut spec: Self =
            toml::from_str(text).map_err(|e| Error::file("understand", file, shortened(e.to_string().trim_end())))?;
        spec.file = file.to_path_buf();
        spec.check().map_err(|e| Error::file("use", file, e))?;
        Ok(spec)
    }

    fn check(&self) -> Result<()> {
        check_range(self.range)?;
        let count = self.classes.len();
        if count == 0 || count > MAX_CLASSES {
            return Err(Error::new(format!("it has {count} classes; 1 to {MAX_CLASSES} are possible"))
                .with_hint("labels are 8-bit numbers, and 255 means ignored pixels"));
        }
        let unsaid = |class: &&ClassSpec| class.name.trim().is_empty() || class.name.contains(char::is_control);
        if let Some(class) = self.classes.iter().find(unsaid) {
            return Err(Error::new(format!("a class has the name {:?}, which cannot be shown", class.name))
                .with_hint("give it a name of letters, without line breaks and control characters"));
        }
        let mut names = HashSet::new();
        if let Some(twice) = self.classes.iter().find(|class| !names.insert(&class.name)) {
            return Err(Error::new(format!("two classes have the name `{}`", twice.name)).with_hint(
                "give each class its own \
                                                                                               name",
            ));
        }
        self.joiner()?;
        LabelMap::new(self).map(|_| ())
    }
}

/// What the parser says, without the rest of long lines.
fn shortened(said: &str) -> String {
    const LONGEST: usize = 160;
    let line = |line: &str| match line.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line.to_string(),
    };
    said.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::spec::Source;

    fn error(text: &str) -> String {
        DatasetSpec::parse(text, Path::new("set.toml")).unwrap_err().to_string()
    }

    #[test]
    fn built_in_descriptions_are_sound() {
        let counts: Vec<_> =
            BUILT_IN.iter().map(|(name, _)| (*name, DatasetSpec::find(name).unwrap().classes().len())).collect();
        let expected = [150, 11, 14, 19, 171, 2, 21];
        let names = ["ade20k", "camvid", "ccp14", "cityscapes", "coco-stuff10k", "dsb2018", "voc"];
        assert_eq!(counts, names.into_iter().zip(expected).collect::<Vec<_>>());
        let ade = DatasetSpec::find("ade20k").unwrap();
        assert_eq!(ade.name, "ade20k");
        assert_eq!(ade.classes[149].source, Some(vec![Source::Index(150)]));
        assert_eq!(ade.classes().colors[2], [6, 230, 230]);
    }

    #[test]
    fn both_forms_of_classes_are_read_and_written() {
        let text = "name = 'x'\nclasses = ['a', { name = 'b', color = [1, 2, 3], source = [1, 7] }]\n";
        let spec = DatasetSpec::parse(text, Path::new("set.toml")).unwrap();
        assert_eq!(spec.classes[1].source, Some(vec![Source::Index(1), Source::Index(7)]));
        let again = DatasetSpec::parse(&toml::to_string(&spec).unwrap(), Path::new("set.toml")).unwrap();
        assert_eq!(spec, again);
    }

    #[test]
    fn annotations_are_no_description() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("all.json");
        std::fs::write(&path, format!("{{\"images\": [{}]}}", "1, ".repeat(5000))).unwrap();
        let error = DatasetSpec::read(&path).unwrap_err();
        assert!(error.to_string().len() < 300, "{error}");
        assert!(error.hint().unwrap().contains("structtoken data init "));
        assert!(super::shortened(&"x".repeat(5000)).len() < 200);
        assert_eq!(super::shortened("a\nb"), "a\nb");
    }

    #[test]
    fn faults_are_shown_with_file_and_line() {
        let message = error("name = 'x'\nclasses = ['a']\n[train]\nimages = 'i'\nmasks = 'm'\nmask_sufix = '.png'\n");
        assert!(message.contains("set.toml") && message.contains("line 6") && message.contains("mask_suffix"));
        let message = error("name = 'x'\nignore = [70000]\nclasses = ['a']\n");
        assert!(message.contains("line 2") && message.contains("65535"), "{message}");
        let message = error("name = 'x'\n[[classes]]\nname = 'a'\ncolour = [1, 2, 3]\n");
        assert!(message.contains("line 4") && message.contains("`colour`"), "{message}");
        assert!(error("name = 'x'\nclasses = ['a', 'a']\n").contains("two classes"));
        assert!(error("name = 'x'\nclasses = []\n").contains("0 classes"));
        let many: Vec<_> = (0..256).map(|i| format!("'{i}'")).collect();
        assert!(error(&format!("name = 'x'\nclasses = [{}]\n", many.join(", "))).contains("256 classes"));
    }
}
