//! Values that a machine holds beside its state, such as caches and its source of randomness.

use std::hash::{Hash, Hasher};
use std::ops::{Deref, DerefMut};

/// A value beside the state of a machine. Machines that differ in it alone are equal, so that a
/// model checker sees one state where there is only one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Uncompared<T>(pub T);

impl<T> PartialEq for Uncompared<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<T> Eq for Uncompared<T> {}

impl<T> Hash for Uncompared<T> {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl<T> Deref for Uncompared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Uncompared<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}
