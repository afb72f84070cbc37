# Each of these does all of its set-up; python3 (3.10 or newer, with venv) and make is all that must be there.
# PYTHON=python3.12 chooses the interpreter; without it python3.11 is taken where there is one, else python3.
TOOLS := .venv-tools
TOX := $(TOOLS)/bin/python -m tox

.PHONY: demo test test-all tools clean
export PYTHON

demo: tools
	@$(TOX) run -q -e demo

# What fits into 20 minutes on two cores; test-all runs every environment.
test: tools
	@$(TOX) run

test-all: tools
	@$(TOX) run -m every

tools:
	@sh tools/bootstrap $(TOOLS)

clean:
	rm -rf $(TOOLS) .tox build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
