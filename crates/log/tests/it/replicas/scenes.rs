//! Small scenes, told one by one.
