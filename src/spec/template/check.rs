//! What can be said of a template before it is filled in.

use serde_json::Value;

use super::fill::{member, only_data, unknown};
use super::functions::LOOKUPS;
use super::{Operand, Part, PartKind, Pipeline};

/// The error with its line. See [`super::Template::check`].
pub(super) fn parts(parts: &[Part], shape: &Value, words: &Value, is_data: bool) -> Result<(), (usize, String)> {
    parts.iter().try_for_each(|part| {
        let is_certain = matches!(part.kind, PartKind::Print(_) | PartKind::Declare(..) | PartKind::Assign(..));
        let shape = if is_certain { words } else { shape };
        Checker { shape, is_data }.parts(std::slice::from_ref(part), true)
    })
}

struct Checker<'s> {
    shape: &'s Value,
    is_data: bool,
}

impl Checker<'_> {
    /// `at_root`: the dot is the whole object, and not something of it that is not known before.
    fn parts(&self, parts: &[Part], at_root: bool) -> Result<(), (usize, String)> {
        parts.iter().try_for_each(|part| match &part.kind {
            PartKind::Text(_) => Ok(()),
            PartKind::Print(pipeline) | PartKind::Declare(_, pipeline) | PartKind::Assign(_, pipeline) => {
                self.pipeline(pipeline, at_root).map_err(|why| (part.line, why))
            }
            PartKind::Branch { is_dot, condition, then, otherwise, .. } => {
                self.pipeline(condition, at_root).map_err(|why| (part.line, why))?;
                self.parts(then, at_root && !is_dot)?;
                self.parts(otherwise, at_root)
            }
            PartKind::Range { over, each, otherwise, .. } => {
                self.pipeline(over, at_root).map_err(|why| (part.line, why))?;
                self.parts(each, false)?;
                self.parts(otherwise, at_root)
            }
        })
    }

    fn pipeline(&self, pipeline: &Pipeline, at_root: bool) -> Result<(), String> {
        pipeline.iter().flatten().try_for_each(|operand| match operand {
            Operand::Field(path) if at_root => self.field(path),
            Operand::Variable(name, path) if name.is_empty() => self.field(path),
            Operand::Function(name) if !self.is_data && LOOKUPS.contains(&name.as_str()) => Err(only_data(name)),
            Operand::Nested(nested, _) => self.pipeline(nested, at_root),
            Operand::Field(_) | Operand::Variable(..) | Operand::Literal(_) | Operand::Function(_) => Ok(()),
        })
    }

    fn field(&self, path: &[String]) -> Result<(), String> {
        let mut at = self.shape;
        for (depth, name) in path.iter().enumerate() {
            match member(at, name) {
                Some(value) => at = value,
                None if at.is_null() => return Ok(()),
                None => return Err(unknown(&path[..depth], name, at, &[])),
            }
        }
        Ok(())
    }
}
