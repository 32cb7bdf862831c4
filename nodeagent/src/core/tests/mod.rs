mod config;
mod end;
mod life;
mod node;
mod random;
