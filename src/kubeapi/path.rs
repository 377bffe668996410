//! Where in an object something is: `spec.list[0].name`, written out only for those who must be told.
//! Of a long name the beginning is written: a client chooses names, and sees them in every complaint
//! of what is below.

use std::fmt;

/// A field or an item, and the way to it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Path<'a> {
    /// The whole object.
    Root,
    Field(&'a Self, &'a str),
    /// What stands in a map under a key.
    Key(&'a Self, &'a str),
    Item(&'a Self, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Self::Root, name) => write!(formatter, "{name:.256}"),
            Self::Field(parent, name) => write!(formatter, "{parent}.{name:.256}"),
            Self::Key(parent, key) => write!(formatter, "{parent}[{key:.256}]"),
            Self::Item(parent, index) => write!(formatter, "{parent}[{index}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_written_as_people_write_it() {
        let spec = Path::Field(&Path::Root, "spec");
        let list = Path::Field(&spec, "list");
        let item = Path::Item(&list, 0);
        let name = Path::Field(&item, "name");
        assert_eq!(name.to_string(), "spec.list[0].name");
        assert_eq!(Path::Root.to_string(), "");
        let label = Path::Key(&spec, "a/b");
        assert_eq!(label.to_string(), "spec[a/b]");
        let long = "x".repeat(1_000);
        let long = Path::Field(&item, &long);
        assert_eq!(long.to_string().len(), "spec.list[0].".len() + 256);
    }
}
