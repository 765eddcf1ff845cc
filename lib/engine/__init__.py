"""Who runs the notebooks: a batch file's rows, planned once, each in a process and a kernel of its own.

No notebook and no other room uses it: they see `study`, which says what a run is. Begin with `rows`, which reads a
batch file, each `row` of it a run to be; `rules` refuses what no notebook can take, `plans` writes down what `batch`
then runs at one of `places`, each row by `execute`.
"""
