"""What is told of trials that train side by side: validations of all to the metrics, the progress of the furthest to people."""

from dataclasses import replace

from epigraph.tuning.loop import Listener, Moment
from epigraph.tuning.run import Run


class Reporter:
    """Gives every fold of every trial what listens to it."""

    def __init__(self, run: Run | None, listener: Listener) -> None:
        self.run, self.told = run, listener
        self.leader, self.step = (0, 0), 0

    def listener(self, trial: int, fold: int) -> Listener:
        """What listens to this fold of this trial."""

        def listen(moment: Moment) -> None:
            if self.run is not None and (moment.score is not None or moment.note):
                self.run.record(replace(moment, trial=trial, fold=fold))
            if (trial, fold) == self.leader or moment.note or moment.step > self.step:
                self.leader, self.step = (trial, fold), moment.step
                self.told(moment)

        return listen

    def refitting(self) -> None:
        """From here on steps are those of a prompt that learns from all rows."""
        self.leader, self.step = (-1, 0), 0
