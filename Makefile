# The face of the build; what each target does is in scripts/ (see CONTRIBUTING.md).
all:
	@scripts/build release
run:
	@scripts/run
check:
	@scripts/bootstrap check && scripts/check debug
bench:
	@scripts/bootstrap run && scripts/build release && build/release/ucow bench $(ROWS)
plots:
	@scripts/bootstrap plots && scripts/build release && scripts/plots $(FILE)
asan tsan checked clang coverage:
	@scripts/bootstrap check && scripts/check $@
mutants:
	@scripts/bootstrap check && scripts/mutants
install:
	@scripts/build release && meson install -C build/release --no-rebuild
format:
	@scripts/check-format --fix
clean:
	@rm -rf build
.PHONY: all run check bench plots asan tsan checked clang coverage mutants install format clean
