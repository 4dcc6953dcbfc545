pub mod contract;
pub mod value;
