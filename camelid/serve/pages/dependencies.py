"""What handlers of the pages ask for, beside the parts of `serve/dependencies.py`."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends

from camelid.serve.dependencies import asked
from camelid.serve.pages.answering import Answers
from camelid.serve.pages.flows import Flows
from camelid.serve.pages.runs import RunStore

AnswersDep = Annotated[Answers, Depends(asked(Answers))]
FlowsDep = Annotated[Flows, Depends(asked(Flows))]
RunsDep = Annotated[RunStore, Depends(asked(RunStore))]
