"""How a data set is described in a recipe: its files, its columns, and how they state each scheme."""

import re

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Column(Strict):
    """How a data set's table states a scheme: in one column of labels or ratings, or in one column for each label.

    A column of labels holds names or synonyms, or words of its own that `codes` reads. A rating's `range` is the scale it
    was given on, by default the scheme's own. Votes, counts or probabilities make a label distribution. With `from` what is
    stated is another scheme's, from which a published crosswalk leads to this one; alone, `from` is what the data set states of
    that scheme anyway.
    """

    column: str | None = None  # by default the one with the scheme's name, or `class` in class folders
    from_: str | None = Field(default=None, alias="from")
    distribution: dict[str, str] = {}  # the column with each label's votes or share
    codes: dict[str, str] = {}  # the label that a word of the table stands for
    range: tuple[float, float] | None = None
    cuts: tuple[float, ...] = ()  # makes classes of a number: below the first cut is the first label
    leave_out: tuple[str, ...] = ()  # values that say nothing about this scheme

    model_config = ConfigDict(serialize_by_alias=True)

    @model_validator(mode="after")
    def _check(self) -> "Column":
        if self.distribution and (self.column or self.codes or self.range or self.cuts or self.leave_out):
            raise ValueError("a distribution has a column for each label, and takes no column, codes, range, cuts or leave_out")
        if self.cuts and (self.range or self.codes):
            raise ValueError("cuts are in the numbers of the column: they take no range and no codes")
        if list(self.cuts) != sorted(set(self.cuts)):
            raise ValueError("the cuts must rise")
        return self


class Derived(Strict):
    """A column made of another: what the first group of a regular expression finds in it."""

    column: str
    pattern: str

    @field_validator("pattern")
    @classmethod
    def _check(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groups
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"no regular expression: {error}") from None
        if groups != 1:
            raise ValueError(f"a pattern needs one group, for what it finds; this one has {groups}")
        return pattern


class Format(Strict):
    """How a data set's files are read: a table of labels, Parquet, an .npz, or folders named by class."""

    labels: str | dict[str, str] = "labels.csv"  # the table, or one for each split
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    quote: str = Field(default='"', min_length=1, max_length=1)
    header: bool = True  # whether the table's first line names its columns
    columns: tuple[str, ...] = ()  # names that stand in place of the header's, or for a header
    images: str = "images"  # the folder of a table's images
    file: str = "image"  # the column with the image, or how columns make its file name: "{ID}.jpg"
    folders: tuple[str, ...] = ()  # what the folders above an image say, outermost first: ["split", "class"]
    derived: dict[str, Derived] = {}
    group: str | None = None  # images of one group stay on one side of a split
    splits: tuple[str, ...] = ()  # the values of the column `split` that are taken; by default all
    schemes: dict[str, Column] = {}

    @model_validator(mode="after")
    def _check_format(self) -> "Format":
        if not self.header and not self.columns:
            raise ValueError("a table without a header needs the names of its columns")
        for name, column in self.schemes.items():
            if column.from_ in self.schemes and self.schemes[column.from_].from_:
                raise ValueError(f"{name} is from {column.from_}, which is itself from {self.schemes[column.from_].from_}: name that one")
        return self

    def column(self, scheme: str) -> Column:
        """How the data set states a scheme."""
        column = self.schemes[scheme]
        if column.from_ in self.schemes and not column.model_fields_set - {"from_"}:
            return self.schemes[column.from_].model_copy(update={"from_": column.from_})
        return column


class DataSet(Format):
    """A data set below the data folder; `layout` names a public one, whose files and labels are known (docs/datasets.md)."""

    path: str
    layout: str | None = None
    repeat: int = Field(default=1, ge=1)  # how often an image is seen in an epoch
    balance: str | None = None  # a scheme of classes: images of its rarer ones are seen more often, so that all are seen alike

    @model_validator(mode="after")
    def _check_schemes(self) -> "DataSet":
        if not self.schemes and self.layout is None:
            raise ValueError("a data set needs the schemes it has labels for, or a layout that knows them")
        return self
