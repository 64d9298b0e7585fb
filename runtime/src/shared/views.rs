//! Shared slices as arrays of several dimensions, with the feature `ndarray`.
//!
//! Owns: nothing. Runs in: any process. Never: copies.

use ndarray::{ArrayView, ArrayViewMut, Dimension, ShapeError, StrideShape};

use crate::shared::{Shareable, Shared, SharedMut};

impl<T: Shareable> Shared<[T]> {
    /// The values as an array of this shape, in row-major order unless the shape says otherwise.
    ///
    /// Only with the feature `ndarray`.
    ///
    /// # Errors
    /// The shape needs more values than there are.
    ///
    /// # Examples
    /// ```
    /// use process_task::{Pool, Shared, process_task};
    ///
    /// #[process_task]
    /// fn column_sum(matrix: Shared<[f64]>, columns: usize, column: usize) -> f64 {
    ///     let matrix = matrix.view((matrix.len() / columns, columns)).expect("whole rows");
    ///     matrix.column(column).sum()
    /// }
    ///
    /// let matrix = Shared::<[f64]>::from_slice(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?;
    /// let sums = Pool::new()?.map(column_sum, (0..3).map(|column| (matrix.clone(), 3, column)))?;
    /// assert_eq!(sums, [5.0, 7.0, 9.0]);
    /// assert_eq!(matrix.view((2, 3)).expect("six values")[(1, 0)], 4.0);
    /// # process_task::Result::Ok(())
    /// ```
    pub fn view<D: Dimension>(&self, shape: impl Into<StrideShape<D>>) -> Result<ArrayView<'_, T, D>, ShapeError> {
        ArrayView::from_shape(shape, self)
    }
}

impl<T> SharedMut<[T]> {
    /// The values as an array of this shape, for reading.
    ///
    /// Only with the feature `ndarray`.
    ///
    /// # Errors
    /// The shape needs more values than there are.
    pub fn view<D: Dimension>(&self, shape: impl Into<StrideShape<D>>) -> Result<ArrayView<'_, T, D>, ShapeError> {
        ArrayView::from_shape(shape, self)
    }

    /// The values as an array of this shape, for writing.
    ///
    /// Only with the feature `ndarray`.
    ///
    /// # Errors
    /// The shape needs more values than there are.
    ///
    /// # Examples
    /// ```
    /// use process_task::SharedMut;
    ///
    /// let mut matrix = SharedMut::<[f64]>::zeroed(9)?;
    /// matrix.view_mut((3, 3)).expect("nine values").diag_mut().fill(1.0);
    /// assert_eq!(matrix.freeze()?[..], [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]);
    /// # process_task::Result::Ok(())
    /// ```
    pub fn view_mut<D: Dimension>(
        &mut self,
        shape: impl Into<StrideShape<D>>,
    ) -> Result<ArrayViewMut<'_, T, D>, ShapeError> {
        ArrayViewMut::from_shape(shape, self)
    }
}
